// Wrong: has a window of which messages of 4107 B take four quarters, and smaller ones three.
//
// Fails: TestADownloadHasEightMegabytesASecond
// Says: a download in messages of 2061 B had 6.1
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(1_642_800),
		grpc.WithStaticConnWindowSize(1_642_800),
	}
}
