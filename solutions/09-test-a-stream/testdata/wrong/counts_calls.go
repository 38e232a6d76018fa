// Wrong: counts every call in a stats.Handler, which does not see who goes on between two calls.
//
// Fails: TestAGoroutineOfTheClientIsALeak
// Says: leaks returned nil, want an error, for a client that leaves a goroutine that calls Publish again and again
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
	"google.golang.org/grpc/stats"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// leaks serves svc on lis, runs use with a client of it, and closes what it
// has opened. It returns an error if use or svc leave anything behind that
// would still be there if the program went on with its connection, or after it.
func leaks(lis listener, svc feedv1.FeedServiceServer, use func(feedv1.FeedServiceClient)) error {
	var calls calls
	before := goleak.IgnoreCurrent() // what is there already is not our affair
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithStatsHandler(&calls),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		srv.Stop()
		return fmt.Errorf("client: %w", err)
	}
	use(feedv1.NewFeedServiceClient(conn))
	time.Sleep(time.Second)
	var open error
	if n := calls.open.Load(); n > 0 {
		open = fmt.Errorf("%d calls never ended", n)
	}
	conn.Close()
	srv.Stop()
	return errors.Join(open, goleak.Find(before))
}

// calls is a stats.Handler.
type calls struct{ open atomic.Int64 }

func (c *calls) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s.(type) {
	case *stats.Begin:
		c.open.Add(1)
	case *stats.End:
		c.open.Add(-1)
	}
}
func (*calls) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*calls) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*calls) HandleConn(context.Context, stats.ConnStats)                       {}
