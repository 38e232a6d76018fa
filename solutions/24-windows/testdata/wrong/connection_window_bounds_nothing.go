// Wrong: wants the connection's window to bound what a stream holds. What arrives is credited to the connection at once.
//
// Fails: TestAStalledDownloadStaysWithinItsMemory
// Says: a client opened a download and read nothing, and its memory had
// Says: the connection's window is no bound
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(64 << 20),
		grpc.WithStaticConnWindowSize(3 << 20),
	}
}
