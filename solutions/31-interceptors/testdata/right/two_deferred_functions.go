// Right: one deferred function recovers, another writes the line.
package main

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func streamInterceptor(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		start := time.Now()
		var extra []any
		c := &counted{ServerStream: stream}
		defer func() {
			took := time.Since(start)
			s, ok := status.FromError(err)
			if !ok {
				s = status.FromContextError(err)
			}
			log.InfoContext(stream.Context(), "stream", append([]any{
				"method", info.FullMethod,
				"code", s.Code().String(),
				"received", c.received.Load(),
				"sent", c.sent.Load(),
				"duration", took,
			}, extra...)...)
		}()
		defer func() { // runs first
			if r := recover(); r != nil {
				err = status.Errorf(codes.Internal, "%s: internal error, incident %d", info.FullMethod, start.UnixNano())
				extra = []any{"panic", fmt.Sprintf("%+v", r), "stack", string(debug.Stack())}
			}
		}()
		return handler(srv, c)
	}
}

// counted is a stream that counts its messages.
type counted struct {
	grpc.ServerStream
	received, sent atomic.Int64
}

func (c *counted) RecvMsg(m any) error {
	err := c.ServerStream.RecvMsg(m)
	if err == nil {
		c.received.Add(1)
	}
	return err
}

func (c *counted) SendMsg(m any) error {
	err := c.ServerStream.SendMsg(m)
	if err == nil {
		c.sent.Add(1)
	}
	return err
}
