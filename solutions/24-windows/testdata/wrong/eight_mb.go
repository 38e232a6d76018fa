// Wrong: takes the bytes of a second for those of a round trip.
//
// Fails: TestAStalledDownloadStaysWithinItsMemory
// Says: a client opened a download and read nothing, and its memory had 8000000
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(8_000_000),
		grpc.WithStaticConnWindowSize(8_000_000),
	}
}
