// Right: counts in a connection around the connection, runs use in a goroutine of its own, and
// returns errors that say little.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// leaks serves svc on lis, runs use with a client of it, and closes what it
// has opened. It returns an error if use or svc leave anything behind that
// would still be there if the program went on with its connection, or after it.
func leaks(lis listener, svc feedv1.FeedServiceServer, use func(feedv1.FeedServiceClient)) error {
	before := goleak.IgnoreCurrent() // what is there already is not our affair
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped
	conn, err := grpc.NewClient("passthrough:///test",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		srv.Stop()
		return fmt.Errorf("client: %w", err)
	}
	counted := &counting{ClientConnInterface: conn}
	done := make(chan bool)
	go func() {
		defer close(done)
		use(feedv1.NewFeedServiceClient(counted))
	}()
	<-done
	time.Sleep(10 * time.Second)
	open, left := counted.open.Load(), goleak.Find(append(transport(), before)...)
	conn.Close()
	srv.Stop()
	switch {
	case open > 0:
		return fmt.Errorf("%d streams never ended", open)
	case left != nil:
		return errors.New("a goroutine never ended")
	}
	return goleak.Find(before)
}

// counting is a connection that knows how many of its streams are open.
type counting struct {
	grpc.ClientConnInterface
	open atomic.Int64
}

func (c *counting) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c.open.Add(1)
	return c.ClientConnInterface.NewStream(ctx, desc, method, append(opts, grpc.OnFinish(func(error) { c.open.Add(-1) }))...)
}

// transport ignores the goroutines that gRPC has for a connection whatever its
// streams do. It names functions, for a reconnect makes new goroutines.
func transport() []goleak.Option {
	var ignore []goleak.Option
	for _, function := range []string{
		".(*Server).Serve",
		".(*addrConn).resetTransportAndUnlock", // waits before it connects again
		"/internal/grpcsync.(*CallbackSerializer).run",
		"/internal/transport.(*http2Client).reader",
		"/internal/transport.(*http2Server).HandleStreams",
		"/internal/transport.(*http2Server).keepalive",
		"/internal/transport.(*loopyWriter).run",
	} {
		ignore = append(ignore, goleak.IgnoreAnyFunction("google.golang.org/grpc"+function))
	}
	return ignore
}
