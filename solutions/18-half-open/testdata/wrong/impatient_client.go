// Wrong: the client's patience is below the round trip, which our server's PINGs hide.
//
// Fails: TestYourClientLivesAtTheirServer
// Says: at a round trip of 2s, with your dialOptions, their server, and a silent stream
// Says: the client closed it
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
			Time:    10 * time.Second,
			Timeout: 5 * time.Second,
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
			Timeout:             1500 * time.Millisecond,
			PermitWithoutStream: true,
		}),
		grpc.WithIdleTimeout(0),
	}
}
