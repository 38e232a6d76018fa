// Right: io.ReadFull on a reader that remembers the error of r.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

const chunkSize = 32<<10 - 8

// errReader remembers the error of its reader.
type errReader struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (k *errReader) Read(p []byte) (int, error) {
	if k.err != nil {
		return 0, k.err
	}
	if k.err = k.ctx.Err(); k.err != nil {
		return 0, k.err
	}
	n, err := k.r.Read(p)
	k.err = err
	return n, err
}

// putBlob uploads what r has, and returns the server's receipt for all of it.
func putBlob(ctx context.Context, client feedv1.FeedServiceClient, r io.Reader) (*feedv1.PutBlobResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return nil, err
	}
	br := &errReader{ctx: ctx, r: r}
	size, hash := int64(0), sha256.New()
	ended := false // by the server
	for end := false; !end; {
		buf := make([]byte, chunkSize)
		n, err := io.ReadFull(br, buf)
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			if br.err != io.EOF {
				return nil, fmt.Errorf("read the blob: %w", br.err)
			}
			end = true
		case err != nil:
			return nil, fmt.Errorf("read the blob: %w", err)
		}
		if n == 0 {
			break
		}
		size += int64(n)
		hash.Write(buf[:n])
		err = stream.Send(&feedv1.Chunk{Data: buf[:n]})
		if err == io.EOF {
			ended = true
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
	if ended || receipt.GetSize() != size || !bytes.Equal(receipt.GetSha256(), hash.Sum(nil)) {
		return nil, fmt.Errorf("the receipt is for %d B, and the blob had %d B", receipt.GetSize(), size)
	}
	return receipt, nil
}
