// Right: as little as can be: three quarters of it are 1.6 MB.
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(2_133_336),
		grpc.WithStaticConnWindowSize(2_133_336),
	}
}
