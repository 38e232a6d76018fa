// Right: one of the older options and one of the newer.
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithInitialConnWindowSize(3 << 20),
		grpc.WithStaticStreamWindowSize(3 << 20),
	}
}
