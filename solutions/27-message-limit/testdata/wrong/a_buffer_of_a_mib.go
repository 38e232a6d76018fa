// Wrong: a bufio.Reader of 1 MiB in front of the chunk.
//
// Fails: TestMemoryDoesNotGrowWithTheBlob
// Says: it holds
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

const chunkSize = 32<<10 - 8

// putBlob uploads what r has, and returns the server's receipt for all of it.
func putBlob(ctx context.Context, client feedv1.FeedServiceClient, r io.Reader) (*feedv1.PutBlobResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return nil, err
	}
	r = bufio.NewReaderSize(r, 1<<20)
	size, hash := int64(0), sha256.New()
	for end := false; !end; {
		buf := make([]byte, chunkSize)
		n := 0
		for n < len(buf) && !end {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			m, err := r.Read(buf[n:])
			n += m
			if err == io.EOF {
				end = true
			} else if err != nil {
				return nil, fmt.Errorf("read the blob: %w", err)
			}
		}
		if n == 0 {
			break
		}
		size += int64(n)
		hash.Write(buf[:n])
		err := stream.Send(&feedv1.Chunk{Data: buf[:n]})
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("send: %w", err)
		}
	}
	receipt, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	if receipt.GetSize() != size || !bytes.Equal(receipt.GetSha256(), hash.Sum(nil)) {
		return nil, fmt.Errorf("the receipt is for %d B, and the blob had %d B", receipt.GetSize(), size)
	}
	return receipt, nil
}
