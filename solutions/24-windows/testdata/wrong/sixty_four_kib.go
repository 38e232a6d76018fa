// Wrong: sets by hand what is said to be the default.
//
// Fails: TestADownloadHasEightMegabytesASecond
// Says: a download in messages of 4107 B had 0.25
// Says: less than 64 KiB, which a window has until it is set to more
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StaticStreamWindowSize(64 << 10),
		grpc.StaticConnWindowSize(64 << 10),
	}
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(64 << 10),
		grpc.WithStaticConnWindowSize(64 << 10),
	}
}
