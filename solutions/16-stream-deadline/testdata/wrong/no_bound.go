// Wrong: has no bound at all.
//
// Fails: TestAnOpeningEndsAfterFiveSeconds
// Says: the server took the stream and sent no header, and tail, which should have returned after 5s, has not returned after 1h0m5s
// Says: blocked in Recv at answer.go:
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string, handle func(*feedv1.Event)) error {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		handle(ev)
	}
}
