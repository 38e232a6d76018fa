package main

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	// TODO: a client's machine loses its power. When does the server know?
	// TODO: and what does the server think of clients that ask?
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		// TODO: there may be no stream for hours. Who asks then, and is there still
		// a connection?
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:    10 * time.Second,
			Timeout: 5 * time.Second,
		}),
	}
}
