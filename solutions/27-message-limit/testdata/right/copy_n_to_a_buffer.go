// Right: io.CopyN fills a bytes.Buffer for each chunk.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type reader func(p []byte) (int, error)

func (f reader) Read(p []byte) (int, error) { return f(p) }

func putBlob(ctx context.Context, client feedv1.FeedServiceClient, r io.Reader) (*feedv1.PutBlobResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	total, hash := int64(0), sha256.New()
	careful := reader(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
	ended := false // by the server
	for {
		var chunk bytes.Buffer
		n, readErr := io.CopyN(&chunk, careful, 100_000)
		if readErr != nil && readErr != io.EOF {
			return nil, fmt.Errorf("read: %w", readErr)
		}
		total += n
		hash.Write(chunk.Bytes())
		if n > 0 {
			if err := stream.Send(&feedv1.Chunk{Data: chunk.Bytes()}); errors.Is(err, io.EOF) {
				ended = true
				break
			} else if err != nil {
				return nil, fmt.Errorf("send: %w", err)
			}
		}
		if readErr == io.EOF {
			break
		}
	}
	receipt, err := stream.CloseAndRecv()
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	if ended || receipt.Size != total || string(receipt.Sha256) != string(hash.Sum(nil)) {
		return nil, errors.New("the server has something else")
	}
	return receipt, nil
}
