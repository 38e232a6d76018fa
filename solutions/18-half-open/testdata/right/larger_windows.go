// Right: sets windows, too, and has the numbers in one place.
package main

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

const (
	silence  = 21 * time.Second
	patience = 7 * time.Second
)

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: silence, Timeout: patience}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: silence / 3, PermitWithoutStream: true}),
		grpc.StaticStreamWindowSize(1 << 20),
	}
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: silence, Timeout: patience, PermitWithoutStream: true}),
		grpc.WithIdleTimeout(0),
		grpc.WithStaticStreamWindowSize(1 << 20),
	}
}
