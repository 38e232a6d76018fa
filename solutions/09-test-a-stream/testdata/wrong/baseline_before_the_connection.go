// Wrong: takes its baseline before the connection is up.
//
// Fails: TestAStreamThatHasEndedIsNoLeak
// Says: leaks returned an error, want nil, for a client that cancels its stream
// Says: and 2 more
package main

import (
	"context"
	"fmt"
	"net"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// leaks serves svc on lis, runs use with a client of it, and closes what it
// has opened. It returns an error if use or svc leave anything behind that
// would still be there if the program went on with its connection, or after it.
func leaks(lis listener, svc feedv1.FeedServiceServer, use func(feedv1.FeedServiceClient)) error {
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
	before := goleak.IgnoreCurrent()
	use(feedv1.NewFeedServiceClient(conn))
	open := goleak.Find(before)
	conn.Close()
	srv.Stop()
	return open
}
