// This program uploads four blobs with your putBlob to a server on loopback,
// which takes messages of 300 KiB: a large one, one whose disk fails, one that
// the server rejects, and one that comes in pieces. It prints what each side
// saw.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"testing/iotest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// demoServer keeps a blob when its client has half-closed. It rejects those that
// are larger than most.
type demoServer struct {
	feedv1.UnimplementedFeedServiceServer
	most  int64
	ended chan string // what the handler saw
}

func (s *demoServer) PutBlob(stream grpc.ClientStreamingServer[feedv1.Chunk, feedv1.PutBlobResult]) error {
	size, chunks, hash := int64(0), 0, sha256.New()
	for {
		chunk, err := stream.Recv()
		switch {
		case err == io.EOF:
			s.ended <- fmt.Sprintf("%d B in %d chunks, kept", size, chunks)
			return stream.SendAndClose(&feedv1.PutBlobResult{Size: size, Sha256: hash.Sum(nil)})
		case err != nil:
			s.ended <- fmt.Sprintf("%d B in %d chunks, not kept: %v", size, chunks, err)
			return err
		}
		size += int64(len(chunk.GetData()))
		chunks++
		hash.Write(chunk.GetData())
		if size > s.most {
			s.ended <- fmt.Sprintf("%d B in %d chunks, and that is too much", size, chunks)
			return status.Errorf(codes.FailedPrecondition, "a blob has at most %d B", s.most)
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &demoServer{most: 100 << 20, ended: make(chan string, 1)}
	srv := grpc.NewServer(grpc.MaxRecvMsgSize(300<<10), grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, s)
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	client := feedv1.NewFeedServiceClient(conn)

	zeros := func(n int64) io.Reader { return io.LimitReader(demoZeros{}, n) }
	for _, blob := range []struct {
		what string
		r    io.Reader
	}{
		{"50 MB", zeros(50_000_000)},
		{"1 MB, and then the disk fails", io.MultiReader(zeros(1_000_000), iotest.ErrReader(errors.New("disk: bad sector")))},
		{"1 GB, for a server that takes 100 MiB", zeros(1_000_000_000)},
		{"100 kB, a byte at a time", iotest.OneByteReader(bytes.NewReader(make([]byte, 100_000)))},
	} {
		fmt.Printf("A blob of %s:\n", blob.what)
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		receipt, err := putBlob(call, client, blob.r)
		fmt.Printf("  client: receipt for %d B, error %v\n", receipt.GetSize(), err)
		select {
		case saw := <-s.ended:
			fmt.Printf("  server: %s\n", saw)
		case <-time.After(time.Second):
			fmt.Printf("  server: has not heard of an end\n")
		case <-ctx.Done():
		}
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// demoZeros has no end.
type demoZeros struct{}

func (demoZeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
