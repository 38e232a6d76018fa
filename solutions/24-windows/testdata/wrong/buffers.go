// Wrong: enlarges the buffers between gRPC and the socket.
//
// Fails: TestADownloadHasEightMegabytesASecond
// Says: the client's windows were still growing
package main

import "google.golang.org/grpc"

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.WriteBufferSize(3 << 20),
		grpc.ReadBufferSize(3 << 20),
	}
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithWriteBufferSize(3 << 20),
		grpc.WithReadBufferSize(3 << 20),
	}
}
