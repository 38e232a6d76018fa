// Wrong: leaves room for the worst, and forgets that a stall takes it.
//
// Fails: TestAStalledDownloadStaysWithinItsMemory
// Says: a client opened a download and read nothing, and its memory had 6291456
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(6 << 20),
		grpc.WithStaticConnWindowSize(6 << 20),
	}
}
