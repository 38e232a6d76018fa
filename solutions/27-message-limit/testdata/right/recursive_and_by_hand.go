// Right: SendMsg, CloseSend and RecvMsg, one chunk a call of itself.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"hash"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func putBlob(ctx context.Context, client feedv1.FeedServiceClient, r io.Reader) (*feedv1.PutBlobResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	n, err := sendAll(ctx, stream, r, h)
	ended := err == io.EOF // by the server
	if err != nil && !ended {
		cancel(err)
		return nil, err
	}
	stream.CloseSend()
	receipt := new(feedv1.PutBlobResult)
	if err := stream.RecvMsg(receipt); err != nil {
		return nil, err
	}
	if ended || int(receipt.GetSize()) != n || !bytes.Equal(receipt.GetSha256(), h.Sum(nil)) {
		return nil, status.Error(codes.DataLoss, "wrong receipt")
	}
	return receipt, nil
}

func sendAll(ctx context.Context, stream grpc.ClientStream, r io.Reader, h hash.Hash) (int, error) {
	chunk := make([]byte, 200_000)
	n, readErr := 0, error(nil)
	for n < len(chunk) && readErr == nil {
		if ctx.Err() != nil {
			return 0, status.FromContextError(ctx.Err()).Err()
		}
		m, err := r.Read(chunk[n:])
		n, readErr = n+m, err
	}
	h.Write(chunk[:n])
	if readErr != nil && readErr != io.EOF {
		return n, readErr
	}
	if n > 0 {
		if err := stream.SendMsg(&feedv1.Chunk{Data: chunk[:n]}); err == io.EOF {
			return n, err
		} else if err != nil {
			return n, err
		}
	}
	if readErr == io.EOF {
		return n, nil
	}
	chunk = nil // not held by the calls below
	rest, err := sendAll(ctx, stream, r, h)
	return n + rest, err
}
