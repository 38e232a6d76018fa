// Wrong: has windows of what is on the way, 8 MB/s for 200 ms. Three quarters of it are certain.
//
// Fails: TestADownloadHasEightMegabytesASecond
// Says: a download in messages of 4107 B had 6.0
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(1_600_000),
		grpc.WithStaticConnWindowSize(1_600_000),
	}
}
