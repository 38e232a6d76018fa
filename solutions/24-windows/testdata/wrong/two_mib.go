// Wrong: has 2 MiB, which are enough for messages that divide 512 KiB, and for no other.
//
// Fails: TestADownloadHasEightMegabytesASecond
// Says: a download in messages of 4107 B had 7.8
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(2 << 20),
		grpc.WithStaticConnWindowSize(2 << 20),
	}
}
