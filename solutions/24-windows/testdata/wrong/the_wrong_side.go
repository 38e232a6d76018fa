// Wrong: sets the windows at the side that sends. The client's are left to the estimator.
//
// Fails: TestAStalledDownloadStaysWithinItsMemory
// Says: a client read as fast as it could for 4.7s and then no more, and its memory had
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StaticStreamWindowSize(3 << 20),
		grpc.StaticConnWindowSize(3 << 20),
	}
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return nil
}
