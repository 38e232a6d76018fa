// Right: needs no goleak: reads the goroutine dump itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// leaks serves svc on lis, runs use with a client of it, and closes what it
// has opened. It returns an error if use or svc leave anything behind that
// would still be there if the program went on with its connection, or after it.
func leaks(lis listener, svc feedv1.FeedServiceServer, use func(feedv1.FeedServiceClient)) error {
	before := goroutines()
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
	open := newSince(before, transport)
	conn.Close()
	srv.Stop()
	return errors.Join(open, newSince(before, nil))
}

// transport names the functions of goroutines that serve a connection.
var transport = []string{
	".(*Server).Serve(", ".(*addrConn).resetTransportAndUnlock(", ".(*CallbackSerializer).run(", ".(*http2Client).reader(",
	".(*http2Server).HandleStreams(", ".(*http2Server).keepalive(", ".(*loopyWriter).run(",
}

// goroutines returns the dump of each goroutine, by its number.
func goroutines() map[string]string {
	buf := make([]byte, 16<<20)
	all := map[string]string{}
	for dump := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		id, _, _ := strings.Cut(dump, " [")
		all[id] = dump
	}
	return all
}

// newSince reports the goroutines that were not there before, are not ignored,
// and do not end within a second.
func newSince(before map[string]string, ignore []string) (left error) {
	for range 100 {
		if left = newNow(before, ignore); left == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return left
}

func newNow(before map[string]string, ignore []string) error {
	var found []error
	for id, dump := range goroutines() {
		ignored := slices.ContainsFunc(ignore, func(function string) bool {
			return strings.Contains(dump, function)
		})
		if before[id] == "" && !ignored {
			found = append(found, errors.New(dump))
		}
	}
	return errors.Join(found...)
}
