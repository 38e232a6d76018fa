package main

import (
	"context"
	"time"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// follow hands the events of a topic to handle, over the end of each stream,
// until handle fails, the server's answer is final, or ctx ends.
func follow(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event) error) error {
	for ctx.Err() == nil {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				// TODO: handle may fail. What is left of the stream then?
				handle(ev)
			}
		}
		// TODO: which answers are final?
		if err := wait(ctx, first); err != nil {
			return err
		}
		// TODO: each wait is to be twice as long as the one before, up to the
		// longest. When does it begin with the first again?
	}
	return ctx.Err()
}

// wait waits for half of d at least and for d at most, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	// TODO: all clients of a server come back at the same moment, and a caller
	// that leaves has to wait.
	time.Sleep(d)
	return nil
}
