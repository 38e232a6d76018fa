// Right: walks the frames itself, and knows a panic by a handler that did not return.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func streamInterceptor(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		log := log.With("method", info.FullMethod)
		c := &counted{ServerStream: stream}
		begin := time.Now()
		err, p := guarded(func() error { return handler(srv, c) })
		took := time.Since(begin)
		received, sent := c.counts()
		code := codeOf(err)
		attrs := []slog.Attr{
			slog.String("code", code.String()), slog.Int("received", received), slog.Int("sent", sent),
			slog.Duration("duration", took), slog.Bool("ok", err == nil), slog.Any("err", err),
		}
		level := slog.LevelInfo
		if code != codes.OK {
			level = slog.LevelWarn
		}
		if p != nil {
			level = slog.LevelError
			attrs = append(attrs, slog.String("panic", p.value), slog.String("stack", p.stack))
		}
		log.LogAttrs(context.Background(), level, "stream ended", attrs...)
		return err
	}
}

func codeOf(err error) codes.Code {
	var s interface{ GRPCStatus() *status.Status }
	switch {
	case err == nil:
		return codes.OK
	case errors.As(err, &s) && s.GRPCStatus() != nil:
		return s.GRPCStatus().Code()
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return codes.Unknown
}

type panicked struct{ value, stack string }

func guarded(f func() error) (err error, p *panicked) {
	finished := false
	defer func() {
		if finished {
			return
		}
		r := recover()
		pcs := make([]uintptr, 64)
		frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
		var b strings.Builder
		for {
			f, more := frames.Next()
			fmt.Fprintf(&b, "%s\n\t%s:%d\n", f.Function, f.File, f.Line)
			if !more {
				break
			}
		}
		p = &panicked{fmt.Sprintf("%v", r), b.String()}
		err = status.Error(codes.Internal, "")
	}()
	err = f()
	finished = true
	return err, nil
}

type counted struct {
	grpc.ServerStream
	mu             sync.Mutex
	received, sent int
}

func (c *counted) counts() (int, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received, c.sent
}

func (c *counted) RecvMsg(m any) (err error) {
	defer func() {
		if err == nil {
			c.mu.Lock()
			c.received++
			c.mu.Unlock()
		}
	}()
	return c.ServerStream.RecvMsg(m)
}

func (c *counted) SendMsg(m any) error {
	if err := c.ServerStream.SendMsg(m); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent++
	return nil
}
