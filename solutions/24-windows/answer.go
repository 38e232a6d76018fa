package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	// A window is for what its side receives. Our servers receive little, and
	// the windows with which gRPC begins are enough.
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		// 8 MB/s are 1.6 MB in a round trip. Three quarters of a window are certain,
		// which makes 2.13 MB at least; a stalled stream holds the whole, which
		// makes 4 MiB at most. The connection has a window, too.
		grpc.WithStaticStreamWindowSize(3 << 20),
		grpc.WithStaticConnWindowSize(3 << 20),
	}
}
