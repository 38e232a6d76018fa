// Wrong: bounds what a server receives in one message, so that uploads hold little. Now they fail.
//
// Fails: TestAnUploadArrives
// Says: the server received 0 of 16 events of an upload
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(8 << 10),
	}
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(3 << 20),
		grpc.WithStaticConnWindowSize(3 << 20),
	}
}
