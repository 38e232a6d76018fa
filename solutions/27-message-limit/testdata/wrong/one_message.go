// Wrong: all of it in one message.
//
// Fails: TestABlobOfAnySizeArrives
// Says: a blob of 400000 B, and the server takes messages of 307200: putBlob returned the error "rpc error: code = ResourceExhausted
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// putBlob uploads what r has, and returns the server's receipt for all of it.
func putBlob(ctx context.Context, client feedv1.FeedServiceClient, r io.Reader) (*feedv1.PutBlobResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // says to the server that this was not all, if it has not heard the half-close
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	size, hash := int64(len(data)), sha256.New()
	hash.Write(data)
	if err := stream.Send(&feedv1.Chunk{Data: data}); err != nil && err != io.EOF {
		return nil, err
	}
	receipt, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	if receipt.GetSize() != size || !bytes.Equal(receipt.GetSha256(), hash.Sum(nil)) {
		return nil, status.Errorf(codes.DataLoss, "the receipt is for %d B, not for the %d B that were read, or for others", receipt.GetSize(), size)
	}
	return receipt, nil
}
