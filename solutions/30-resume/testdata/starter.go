package main

import (
	"context"
	"errors"
	"io"
	"time"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// wait passes before a stream that has broken is opened again.
const wait = time.Second

// resume hands the events of the topic to handle, one after the other, and goes
// on where it was, after whatever has ended the stream or the last call.
func resume(ctx context.Context, client feedv1.FeedServiceClient, st store, handle func(*feedv1.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// TODO: what Load or Save says may be an error.
	last, _ := st.Load()
	for {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys", AfterCursor: last})
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				// TODO: a crash may come between any two of these lines. Which
				// event is lost then? And the server may send one twice.
				last = ev.GetCursor()
				st.Save(last)
				err = handle(ev)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		// TODO: not every error passes by itself, nor is every one the stream's.
		time.Sleep(wait)
	}
}
