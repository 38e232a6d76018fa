// Right: a goroutine receives from the start, and so hears of the end first.
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

// putBlob uploads what r has, and returns the server's receipt for all of it.
// A goroutine waits for the server's end from the start.
func putBlob(ctx context.Context, client feedv1.FeedServiceClient, r io.Reader) (*feedv1.PutBlobResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := client.PutBlob(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	var receipt *feedv1.PutBlobResult
	var end error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m := new(feedv1.PutBlobResult)
		if end = stream.RecvMsg(m); end == nil {
			receipt = m
		}
	}()
	defer func() { cancel(); <-ended }()

	size, hash := int64(0), sha256.New()
	over := func() error {
		if end != nil {
			return end
		}
		return errors.New("the server says OK before the end of the blob")
	}
	for eof := false; !eof; {
		buf := make([]byte, 0, 128<<10)
		for len(buf) < cap(buf) && !eof {
			select {
			case <-ended:
				return nil, over()
			case <-ctx.Done():
				return nil, ctx.Err()
			default:
			}
			n, err := r.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+n]
			if err != nil && err != io.EOF {
				return nil, fmt.Errorf("read: %w", err)
			}
			eof = err == io.EOF
		}
		if len(buf) == 0 {
			break
		}
		size += int64(len(buf))
		hash.Write(buf)
		if err := stream.Send(&feedv1.Chunk{Data: buf}); err == io.EOF {
			<-ended
			return nil, over()
		} else if err != nil {
			return nil, err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	<-ended
	if end != nil {
		return nil, end
	}
	if receipt.GetSize() != size || !bytes.Equal(receipt.GetSha256(), hash.Sum(nil)) {
		return nil, errors.New("the receipt is for something else")
	}
	return receipt, nil
}
