package lab

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// An RPC is one call on a connection of the lab.
type RPC struct {
	Method   string    // "Watch"
	OpenedAt string    // the line that opened it: "answer.go:23"
	Began    time.Time // virtual
	Ended    bool
	Err      error // how it ended; nil for OK
}

// calls counts RPCs in interceptors. A stats.Handler would not do: it counts
// attempts, and when the opening of a stream is retried transparently,
// grpc-go v1.85.0 begins one attempt that it never ends (stream.go,
// (*clientStream).withRetry: after retryLocked the replay buffer is still
// empty, so a second new attempt replaces the first).
type calls struct {
	mu   sync.Mutex
	rpcs []*RPC
}

// begin records a call that is being opened by the goroutine that calls it.
func (c *calls) begin(method string) (end func(error)) {
	rpc := &RPC{Method: base(method), OpenedAt: caller(), Began: time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rpcs = append(c.rpcs, rpc)
	return func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		rpc.Ended, rpc.Err = true, err
	}
}

func (c *calls) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	end := c.begin(method)
	err := invoke(ctx, method, req, reply, conn, opts...)
	end(err)
	return err
}

func (c *calls) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	end := c.begin(method)
	stream, err := open(ctx, desc, conn, method, append(opts, grpc.OnFinish(end))...)
	if err != nil {
		end(err)
	}
	return stream, err
}

// RPCs returns the calls on the lab's connections in the order in which they
// were opened.
func (l *Lab) RPCs() []RPC {
	l.calls.mu.Lock()
	defer l.calls.mu.Unlock()
	rpcs := make([]RPC, len(l.calls.rpcs))
	for i, rpc := range l.calls.rpcs {
		rpcs[i] = *rpc
	}
	return rpcs
}

// base is the method's name without its service.
func base(method string) string { return method[strings.LastIndex(method, "/")+1:] }

// caller returns the line of the program under test that is being executed.
func caller() string {
	at, _, _ := here().user()
	return at.place()
}

// recoverUnary and recoverStream turn a handler's panic into a failure of this
// test: without them it would take the process, and every other test, along.
func (l *Lab) recoverUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (_ any, err error) {
	defer l.recovered(info.FullMethod, &err)
	return next(ctx, req)
}

func (l *Lab) recoverStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer l.recovered(info.FullMethod, &err)
	return next(srv, stream)
}

func (l *Lab) recovered(method string, err *error) {
	if r := recover(); r != nil { // the panic's frames still stand on the stack
		l.Errorf("the %s handler panicked: %v (%s)", base(method), r, caller())
		*err = status.Error(codes.Internal, fmt.Sprint("panic: ", r))
	}
}
