// Wrong: a queue of 1,000 chunks between reading and sending.
//
// Fails: TestMemoryDoesNotGrowWithTheBlob
// Says: want 1048576 at most
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"time"

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
	chunks, failed := make(chan []byte, 1000), make(chan error, 1)
	go func() {
		defer close(chunks)
		for {
			data, err := readChunk(ctx, r)
			if len(data) > 0 {
				select {
				case chunks <- data:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				if err != io.EOF {
					failed <- err
				}
				return
			}
		}
	}()
	time.Sleep(time.Millisecond) // the network is slow, and the reader does not wait for it
loop:
	for {
		select {
		case data, ok := <-chunks:
			if !ok {
				break loop
			}
			size += int64(len(data))
			hash.Write(data)
			if err := stream.Send(&feedv1.Chunk{Data: data}); err == io.EOF {
				break loop
			} else if err != nil {
				return nil, err
			}
		}
	}
	select {
	case err := <-failed:
		return nil, err
	default:
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
