// Right: waits for Serve to return, in an errgroup, and says no more than that there is a leak.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// leaks serves svc on lis, runs use with a client of it, and closes what it
// has opened. It returns an error if use or svc leave anything behind that
// would still be there if the program went on with its connection, or after it.
func leaks(lis listener, svc feedv1.FeedServiceServer, use func(feedv1.FeedServiceClient)) error {
	before := goleak.IgnoreCurrent()
	var g errgroup.Group
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, svc)
	g.Go(func() error { return srv.Serve(lis) })
	conn, err := grpc.NewClient("passthrough:///test",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		srv.Stop()
		return fmt.Errorf("client: %w", err)
	}

	use(feedv1.NewFeedServiceClient(conn))
	first := goleak.Find(append(transport(), before)...)
	conn.Close()
	srv.Stop()
	if err := g.Wait(); err != nil {
		return err
	}
	if first == nil {
		first = goleak.Find(before)
	}
	if first != nil {
		return errLeak
	}
	return nil
}

var errLeak = errors.New("leak")

func transport() []goleak.Option {
	var o []goleak.Option
	for _, f := range []string{
		"google.golang.org/grpc.(*Server).Serve",
		"google.golang.org/grpc.(*addrConn).resetTransportAndUnlock",
		"google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run",
		"google.golang.org/grpc/internal/transport.(*http2Client).reader",
		"google.golang.org/grpc/internal/transport.(*http2Client).keepalive",
		"google.golang.org/grpc/internal/transport.(*http2Server).HandleStreams",
		"google.golang.org/grpc/internal/transport.(*http2Server).keepalive",
		"google.golang.org/grpc/internal/transport.(*loopyWriter).run",
	} {
		o = append(o, goleak.IgnoreAnyFunction(f))
	}
	return o
}
