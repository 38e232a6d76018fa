package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// Take this file along to a service of your own, and from main.go leaks with
// what it calls. Put your handlers in the place of server, and your client in
// the place of takeFirstAndCancel.

func TestTakeFirstAndCancelLeavesNothing(t *testing.T) {
	leavesNothing(t, server{}, func(ctx context.Context, client feedv1.FeedServiceClient) error {
		_, err := takeFirstAndCancel(ctx, client, "alerts")
		return err
	})
}

// leavesNothing runs use against svc over bufconn, in virtual time, and fails
// the test if anything is left. The context has a limit, or a use that waits
// for ever would not end, and no cancel before leaks has looked: that would
// end the streams which use has left. The limit is in virtual time, and a use
// that spins, or waits for a lock, a socket or a channel from outside, stops
// that: then it is the -timeout of go test that ends it.
func leavesNothing(t *testing.T, svc feedv1.FeedServiceServer,
	use func(context.Context, feedv1.FeedServiceClient) error,
) {
	t.Helper()
	inBubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		left := leaks(bufconn.Listen(1<<20), svc, func(client feedv1.FeedServiceClient) {
			if err := use(ctx, client); err != nil {
				t.Error(err)
			}
		})
		if left != nil {
			t.Error(left)
		}
	})
}

// inBubble runs body in virtual time. A goroutine that is left when the bubble
// ends makes synctest panic, which would end all other tests of the package
// too: once body has reported it, the panic has nothing to add.
func inBubble(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil && !t.Failed() {
			panic(r)
		}
	}()
	synctest.Test(t, body)
}
