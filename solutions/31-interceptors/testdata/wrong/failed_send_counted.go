// Wrong: counts a message that was not sent.
//
// Fails: TestWhatFailsIsNoMessage
// Says: Recv and Send failed with EOF: in its line sent is 2, want 1
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

// streamInterceptor turns a handler's panic into Internal, and writes one line
// to log for each stream, when it has ended.
func streamInterceptor(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		start, counted := time.Now(), &counted{ServerStream: stream}
		defer func() { // also when the handler panics
			r := recover()
			if r != nil {
				err = status.Error(codes.Internal, "internal error") // the client needs no more
			}
			line := []any{
				"method", info.FullMethod,
				"code", codeOf(err),
				"received", counted.received.Load(),
				"sent", counted.sent.Load(),
				"duration", time.Since(start),
			}
			if r != nil {
				line = append(line, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			}
			log.Info("stream", line...)
		}()
		return handler(srv, counted)
	}
}

// codeOf is the code that gRPC will make of what a handler returned
// (server.go, processRPC): a context's error has no status, but has a code.
func codeOf(err error) codes.Code {
	if st, ok := status.FromError(err); ok {
		return st.Code()
	}
	return status.FromContextError(err).Code()
}

// counted is a stream that counts its messages. Its counters are atomic: a
// handler may send on one goroutine and receive on another, which may still be
// in Recv when the handler returns.
type counted struct {
	grpc.ServerStream
	received, sent atomic.Int64
}

func (c *counted) RecvMsg(m any) error {
	err := c.ServerStream.RecvMsg(m)
	if err == nil { // io.EOF is the half-close
		c.received.Add(1)
	}
	return err
}

func (c *counted) SendMsg(m any) error {
	c.sent.Add(1)
	return c.ServerStream.SendMsg(m)
}
