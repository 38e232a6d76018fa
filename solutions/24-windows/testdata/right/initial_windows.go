// Right: the older options, which in v1.85 fix the windows as well.
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithInitialWindowSize(3 << 20),
		grpc.WithInitialConnWindowSize(3 << 20),
	}
}
