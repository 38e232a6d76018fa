// Wrong: keeps the counters in a map of the package, by the stream's context: two interceptors of a chain share them.
//
// Fails: TestEachStreamHasItsOwnCounts
// Says: two interceptors in one chain
// Says: log 1 of 2 says received 6 and sent 6, want 3 and 3
package main

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func streamInterceptor(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		start := time.Now()
		v, _ := counts.LoadOrStore(stream.Context(), &count{})
		n := v.(*count)
		defer counts.Delete(stream.Context())
		c := &counted{ServerStream: stream, count: n}
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
				"received", c.received.Load(),
				"sent", c.sent.Load(),
				"duration", took,
			}, extra...)...)
		}()
		return handler(srv, c)
	}
}

// counted is a stream that counts its messages.
type counted struct {
	grpc.ServerStream
	*count
}

type count struct{ received, sent atomic.Int64 }

var counts sync.Map // of *count, by stream

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
