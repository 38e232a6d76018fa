// Right: counts in a connection around the connection, and runs use in a goroutine of its own.
package main

import (
	"context"
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
	open := counted.open.Load()
	conn.Close()
	srv.Stop()
	if open > 0 {
		return fmt.Errorf("%d streams never ended", open)
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
