// Wrong: counts the streams, and looks for goroutines only when all is closed: as if whatever
// Close ends were a stream, or waited for one.
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

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// leaks serves svc on lis, runs use with a client of it, and closes what it
// has opened. It returns an error if use or svc leave anything behind that
// would still be there if the program went on with its connection, or after it.
func leaks(lis listener, svc feedv1.FeedServiceServer, use func(feedv1.FeedServiceClient)) error {
	var streams streams
	before := goleak.IgnoreCurrent() // what is there already is not our affair
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithChainStreamInterceptor(streams.count),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		srv.Stop()
		return fmt.Errorf("client: %w", err)
	}
	use(feedv1.NewFeedServiceClient(conn))
	time.Sleep(time.Second)
	open := streams.left()
	conn.Close()
	srv.Stop()
	return errors.Join(open, goleak.Find(before))
}

// streams counts the streams of a connection.
type streams struct{ begun, ended atomic.Int64 }

func (s *streams) count(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s.begun.Add(1)
	return open(ctx, desc, conn, method, append(opts, grpc.OnFinish(func(error) { s.ended.Add(1) }))...)
}

func (s *streams) left() error {
	if n := s.begun.Load() - s.ended.Load(); n > 0 {
		return fmt.Errorf("%d streams never ended", n)
	}
	return nil
}
