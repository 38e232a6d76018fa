// Right: io.Copy to a bufio.Writer, behind which a Write is a chunk.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func putBlob(ctx context.Context, client feedv1.FeedServiceClient, r io.Reader) (*feedv1.PutBlobResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return nil, err
	}
	c := &chunks{stream: stream, hash: sha256.New()}
	w := bufio.NewWriterSize(c, 20_000)
	_, err = io.Copy(struct{ io.Writer }{w}, reader{ctx, r})
	if err == nil {
		err = w.Flush()
	}
	var failed sendError
	ended := errors.As(err, &failed) && failed.error == io.EOF // by the server
	if ended {
		err = nil
	} else if failed.error != nil {
		return nil, failed.error
	} else if err != nil {
		return nil, err
	}
	receipt, err := stream.CloseAndRecv()
	if err == nil && (ended || receipt.GetSize() != c.size || !bytes.Equal(receipt.GetSha256(), c.hash.Sum(nil))) {
		err = errors.New("wrong receipt")
	}
	return receipt, err
}

// chunks is what r is copied to.
type chunks struct {
	stream grpc.ClientStreamingClient[feedv1.Chunk, feedv1.PutBlobResult]
	size   int64
	hash   hash.Hash
}

func (c *chunks) Write(p []byte) (int, error) {
	c.size += int64(len(p))
	c.hash.Write(p)
	if err := c.stream.Send(&feedv1.Chunk{Data: bytes.Clone(p)}); err != nil {
		return 0, sendError{err}
	}
	return len(p), nil
}

type sendError struct{ error }

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
