// Wrong: counts goroutines before and after.
//
// Fails: TestAnIdleConnectionHidesNoLeak
// Says: leaks returned nil, want an error, for a client that leaves a goroutine and is idle for 45 minutes
package main

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
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
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		conn.WaitForStateChange(context.Background(), state)
	}
	time.Sleep(100 * time.Millisecond) // the server's side is up too
	before := goroutines()
	use(feedv1.NewFeedServiceClient(conn))
	time.Sleep(1300 * time.Millisecond)
	after := goroutines()
	conn.Close()
	srv.Stop()
	if after > before {
		return fmt.Errorf("%d goroutines too many", after-before)
	}
	return nil
}

// goroutines is runtime.NumGoroutine without those that the runtime starts
// when it likes.
func goroutines() int {
	buf := make([]byte, 16<<20)
	dump := string(buf[:runtime.Stack(buf, true)])
	return strings.Count(dump, "\ncreated by ") - strings.Count(dump, "\ncreated by runtime.")
}
