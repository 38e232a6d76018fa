// Wrong: each call gets a timeout as well, and a stream is a call.
//
// Fails: TestAHealthyConnectionLivesADay
// Says: and a silent stream, the connection lost its stream, over a healthy network: after 25s it ended with rpc error: code = DeadlineExceeded
package main

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:    20 * time.Second,
			Timeout: 10 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             5 * time.Second,
			PermitWithoutStream: true,
		}),
	}
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                20 * time.Second,
			Timeout:             10 * time.Second,
			PermitWithoutStream: true,
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "timeout": "25s"}]}`),
	}
}
