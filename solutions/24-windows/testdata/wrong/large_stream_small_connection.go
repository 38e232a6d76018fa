// Wrong: holds the memory down by the connection's window.
//
// Fails: TestADownloadHasEightMegabytesASecond
// Says: a download in messages of 4107 B had 3.9
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(4 << 20),
		grpc.WithStaticConnWindowSize(1 << 20),
	}
}
