package main

import (
	"context"
	"errors"
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
	use(feedv1.NewFeedServiceClient(conn))
	// Close would end every stream, what waits for one, and what goes on until
	// a call fails: so look now. Find itself waits 0.43 s for what is ending.
	open := goleak.Find(append(transport(), before)...)
	// Stop, since GracefulStop would wait for a stream that use has left.
	conn.Close()
	srv.Stop()
	// Now that the connection's own goroutines are gone, nothing is ignored:
	// this finds a connection that use has forgotten.
	return errors.Join(open, goleak.Find(before))
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
