// Wrong: these bound how long it takes to connect.
//
// Fails: TestTheServerNoticesADeadClient
// Says: and the server noticed only after 2h0m19.99s
package main

import (
	"time"

	"google.golang.org/grpc"
)

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ConnectionTimeout(20 * time.Second),
	}
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 20 * time.Second}),
		grpc.WithIdleTimeout(0),
	}
}
