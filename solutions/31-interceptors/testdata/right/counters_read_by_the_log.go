// Right: the log reads the counters, which are slog.LogValuers.
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
		c := &counted{ServerStream: stream}
		defer func() {
			took := time.Since(start)
			var extra []any
			if r := recover(); r != nil {
				err = status.Error(codes.Internal, "internal error")
				extra = []any{"panic", fmt.Sprint(r), "stack", string(debug.Stack())}
			}
			s, ok := status.FromError(err)
			if !ok {
				s = status.FromContextError(err)
			}
			log.InfoContext(stream.Context(), "stream", append([]any{
				"method", info.FullMethod,
				"code", s.Code().String(),
				"received", lazy{&c.received},
				"sent", lazy{&c.sent},
				"duration", took,
			}, extra...)...)
		}()
		return handler(srv, c)
	}
}

type lazy struct{ n *atomic.Int64 }

func (l lazy) LogValue() slog.Value { return slog.Int64Value(l.n.Load()) }

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
