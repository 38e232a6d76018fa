// Right: a connection window for many downloads at once. It holds nothing: what arrives is credited at once.
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(5 << 19),
		grpc.WithStaticConnWindowSize(64 << 20),
	}
}
