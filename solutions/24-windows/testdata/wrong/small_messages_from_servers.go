// Wrong: bounds what a server may send in one message, to save memory.
//
// Fails: TestADownloadHasEightMegabytesASecond
// Says: a download of messages with a body of 65536 B failed
// Says: trying to send message larger than max
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxSendMsgSize(32 << 10),
	}
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(3 << 20),
		grpc.WithStaticConnWindowSize(3 << 20),
	}
}
