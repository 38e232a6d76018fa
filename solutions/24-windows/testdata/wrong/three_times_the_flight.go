// Wrong: has three times what is on the way, to be safe. A stall at full speed holds three quarters of it, one at once the whole.
//
// Fails: TestAStalledDownloadStaysWithinItsMemory
// Says: a client opened a download and read nothing, and its memory had 4800000 B
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(3 * 8_000_000 / 5),
		grpc.WithStaticConnWindowSize(3 * 8_000_000 / 5),
	}
}
