// Wrong: raises the window of a stream, and the connection's is 64 KiB.
//
// Fails: TestADownloadHasEightMegabytesASecond
// Says: a download in messages of 4107 B had 0.25
// Says: less than 64 KiB, which a window has until it is set to more
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(3 << 20),
	}
}
