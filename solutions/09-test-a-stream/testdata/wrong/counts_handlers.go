// Wrong: counts the handlers that run, and so sees one side.
//
// Fails: TestAStreamThatOnlyTheServerHasEndedIsALeak
// Says: leaks returned nil, want an error, for a client that takes the only event of a stream and not the io.EOF after it
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
	var running atomic.Int64
	before := goleak.IgnoreCurrent() // what is there already is not our affair
	srv := grpc.NewServer(grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		running.Add(1)
		defer running.Add(-1)
		return next(srv, stream)
	}))
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped
	conn, err := grpc.NewClient("passthrough:///test",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		srv.Stop()
		return fmt.Errorf("client: %w", err)
	}
	use(feedv1.NewFeedServiceClient(conn))
	time.Sleep(time.Second)
	n := running.Load()
	conn.Close()
	srv.Stop()
	if n > 0 {
		return fmt.Errorf("%d handlers still run", n)
	}
	return goleak.Find(before)
}
