// Right: an errgroup reads and sends, with three chunks between them.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

var errEnded = errors.New("the server has ended the stream")

func putBlob(ctx context.Context, client feedv1.FeedServiceClient, r io.Reader) (*feedv1.PutBlobResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return nil, err
	}
	size, hash := 0, sha256.New()
	group, groupCtx := errgroup.WithContext(ctx)
	chunks := make(chan []byte, 3)
	group.Go(func() error {
		defer close(chunks)
		for {
			chunk := make([]byte, 0, 50_000)
			var err error
			for len(chunk) < cap(chunk) && err == nil && groupCtx.Err() == nil {
				var n int
				n, err = r.Read(chunk[len(chunk):cap(chunk)])
				chunk = chunk[:len(chunk)+n]
			}
			if err != nil && err != io.EOF {
				return err
			}
			if groupCtx.Err() != nil {
				return groupCtx.Err()
			}
			size += len(chunk)
			hash.Write(chunk)
			if len(chunk) > 0 {
				select {
				case chunks <- chunk:
				case <-groupCtx.Done():
					return groupCtx.Err()
				}
			}
			if err == io.EOF {
				return nil
			}
		}
	})
	group.Go(func() error {
		for chunk := range chunks {
			if err := stream.Send(&feedv1.Chunk{Data: chunk}); err == io.EOF {
				return errEnded
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	err = group.Wait()
	if err != nil && err != errEnded {
		return nil, err
	}
	ended := err != nil
	receipt, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	if ended || int(receipt.GetSize()) != size || !bytes.Equal(receipt.GetSha256(), hash.Sum(nil)) {
		return nil, errors.New("the server has not kept what r had")
	}
	return receipt, nil
}
