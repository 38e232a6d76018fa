// Wrong: raises the server's windows as far as an estimator would.
//
// Fails: TestAnUnreadUploadStaysWithinItsMemory
// Says: with your serverOptions, a handler did not read its upload, and the server's memory had
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InitialWindowSize(16 << 20),
		grpc.InitialConnWindowSize(16 << 20),
	}
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(3 << 20),
		grpc.WithStaticConnWindowSize(3 << 20),
	}
}
