package main

import (
	"context"
	"errors"
	"io"
	"time"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchIdle hands the events of a topic to handle, one after the other, until
// the topic ends, or until it has waited for an event for as long as idle says:
// then it returns ErrIdle.
func watchIdle(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	idle time.Duration, handle func(*feedv1.Event)) error {
	// TODO: this bounds the stream, however much it has to say. What is to be
	// bounded is each wait for an event.
	ctx, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			// TODO: handle may take longer than idle. Who waits meanwhile?
			handle(ev)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	// TODO: who ended the stream: its server, its caller, or the limit?
	return err
}
