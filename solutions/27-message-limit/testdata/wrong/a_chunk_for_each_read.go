// Wrong: sends what each Read brings, be it a byte.
//
// Fails: TestABlobIsWhatItsReaderHas
// Says: has 1 B, want 16384 at least in all but the last
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
	size, hash := int64(0), sha256.New()
	for {
		data := make([]byte, chunkSize)
		n, err := r.Read(data)
		if n > 0 {
			size += int64(n)
			hash.Write(data[:n])
			if err := stream.Send(&feedv1.Chunk{Data: data[:n]}); err == io.EOF {
				break
			} else if err != nil {
				return nil, err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
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
