package main

import (
	"context"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// putBlob uploads what r has, and returns the server's receipt for all of it.
func putBlob(ctx context.Context, client feedv1.FeedServiceClient, r io.Reader) (*feedv1.PutBlobResult, error) {
	// TODO: this is the whole blob in memory, and the server does not take it
	// in one message. Send it in chunks.
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return nil, err
	}
	// TODO: when r fails on the way, the server must not keep what it has.
	if err := stream.Send(&feedv1.Chunk{Data: data}); err != nil {
		// TODO: the server may have ended the stream, and this does not say how.
		return nil, err
	}
	// TODO: is the receipt for what r had?
	return stream.CloseAndRecv()
}
