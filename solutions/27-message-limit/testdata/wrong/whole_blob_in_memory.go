// Wrong: in chunks, when all of it is in memory.
//
// Fails: TestMemoryDoesNotGrowWithTheBlob
// Says: has sent 0: it holds
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// chunkSize is how many bytes of the blob one message carries. With its field it
// fits into 32 KiB, above which gRPC takes buffers of 1 MiB.
const chunkSize = 32<<10 - 8

// putBlob uploads what r has, and returns the server's receipt for all of it.
func putBlob(ctx context.Context, client feedv1.FeedServiceClient, r io.Reader) (*feedv1.PutBlobResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // says to the server that this was not all, if it has not heard the half-close
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return nil, err
	}
	all, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	size, hash := int64(len(all)), sha256.New()
	hash.Write(all)
	for data := range slices.Chunk(all, chunkSize) {
		if err := stream.Send(&feedv1.Chunk{Data: data}); err != nil {
			if err == io.EOF {
				break
			}
			return nil, err
		}
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
