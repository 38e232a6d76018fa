// Wrong: has a lock for each direction, and the line wants both.
//
// Fails: TestNoCallWaitsForAnother
// Says: a goroutine of a handler is in Recv: the handler has returned, and your line waits for it
package main

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
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
			c.rmu.Lock()
			defer c.rmu.Unlock()
			c.smu.Lock()
			defer c.smu.Unlock()
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
				"received", c.received,
				"sent", c.sent,
				"duration", took,
			}, extra...)...)
		}()
		return handler(srv, c)
	}
}

// counted is a stream that counts its messages.
type counted struct {
	grpc.ServerStream
	rmu, smu       sync.Mutex
	received, sent int64
}

func (c *counted) RecvMsg(m any) error {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	err := c.ServerStream.RecvMsg(m)
	if err == nil {
		c.received++
	}
	return err
}

func (c *counted) SendMsg(m any) error {
	c.smu.Lock()
	defer c.smu.Unlock()
	err := c.ServerStream.SendMsg(m)
	if err == nil {
		c.sent++
	}
	return err
}
