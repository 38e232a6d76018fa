// Wrong: all calls share a counter. That it is atomic makes it no race, and no
// better.
//
// Fails: TestTwoUploadsAtOnceKnowNothingOfEachOther
// Says: 4 uploads at once: number
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// chunkSize is how many bytes of the blob one message carries. With its field it
// fits into 32 KiB, above which gRPC takes buffers of 1 MiB.
const chunkSize = 32<<10 - 8

var size atomic.Int64 // of the blob

// putBlob uploads what r has, and returns the server's receipt for all of it.
func putBlob(ctx context.Context, client feedv1.FeedServiceClient, r io.Reader) (*feedv1.PutBlobResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // says to the server that this was not all, if it has not heard the half-close
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return nil, err
	}
	size.Store(0)
	hash := sha256.New()
	for more := true; more; {
		data, err := readChunk(ctx, r)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("put blob: after %d B: %w", size.Load()+int64(len(data)), err)
		}
		more = err == nil
		if len(data) == 0 {
			break
		}
		size.Add(int64(len(data))) // also if it is not sent: the receipt must be for it
		hash.Write(data)
		err = stream.Send(&feedv1.Chunk{Data: data})
		if err == io.EOF {
			break // the server has ended the stream; how, says CloseAndRecv
		}
		if err != nil {
			return nil, err
		}
	}
	receipt, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	if receipt.GetSize() != size.Load() || !bytes.Equal(receipt.GetSha256(), hash.Sum(nil)) {
		return nil, status.Errorf(codes.DataLoss, "the receipt is for %d B, not for the %d B that were read, or for others", receipt.GetSize(), size.Load())
	}
	return receipt, nil
}

// readChunk fills a chunk, and returns less only with an error. Each chunk has
// bytes of its own, for whoever keeps a message. It is not io.ReadFull, whose
// io.ErrUnexpectedEOF may be its own or r's.
func readChunk(ctx context.Context, r io.Reader) (data []byte, err error) {
	data = make([]byte, chunkSize)
	n := 0
	for n < len(data) && err == nil {
		if err = ctx.Err(); err == nil {
			var m int
			m, err = r.Read(data[n:])
			n += m
		}
	}
	return data[:n], err
}
