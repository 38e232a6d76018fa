// Wrong: has windows of 1 GiB at the server, for uploads.
//
// Fails: TestAnUnreadUploadStaysWithinItsMemory
// Says: a handler did not read its upload, and the server's memory had
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StaticStreamWindowSize(1 << 30),
		grpc.StaticConnWindowSize(1 << 30),
	}
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(3 << 20),
		grpc.WithStaticConnWindowSize(3 << 20),
	}
}
