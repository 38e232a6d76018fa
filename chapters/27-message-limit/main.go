// A receiver takes messages of up to 4 MiB. It is the receiver who complains of
// a larger one: Send has returned nil by then. Raising the limit lets each
// message have more memory. Chunks need none of it.
//
// The program sends a blob in one message, then in chunks, and gives up another
// one halfway, in two ways. Only one of them leaves no half of it behind.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type (
	putServer = grpc.ClientStreamingServer[feedv1.Chunk, feedv1.PutBlobResult]
	putClient = grpc.ClientStreamingClient[feedv1.Chunk, feedv1.PutBlobResult]
)

// chunkSize costs 0.11 % more bytes on the wire. Encoded it fits into 32 KiB: for
// a byte more gRPC takes a buffer of 1 MiB.
const chunkSize = 32<<10 - 8

// serverOptions are for a server that takes blobs in chunks.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(256 << 10), // 8 chunks; one such message takes 1.5 MiB of memory
		grpc.MaxSendMsgSize(4 << 20),   // a client takes no more by default: so fail here, in Send
		grpc.MaxConcurrentStreams(100), // 100 × 1.5 MiB are 150 MiB a connection
	}
}

// dialOptions are for its clients.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithDefaultCallOptions(
		grpc.MaxCallSendMsgSize(256<<10), // the server's limit: so fail in Send, and send nothing
		grpc.MaxCallRecvMsgSize(4<<20),   // the default: one such reply takes 12 MiB of memory
	)}
}

// server keeps the sizes of its blobs. A real one would write to a temporary
// file, and give it its name where keep is called.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	mu    sync.Mutex
	kept  []int64
	ended chan struct{} // a handler has returned
}

// PutBlob keeps a blob when its client has said that this is all, and not
// before: any other end of the stream is an error of Recv.
func (s *server) PutBlob(stream putServer) error {
	defer func() { s.ended <- struct{}{} }()
	size, hash := int64(0), sha256.New()
	for {
		chunk, err := stream.Recv()
		if err == io.EOF { // the half-close
			s.keep(size)
			return stream.SendAndClose(&feedv1.PutBlobResult{Size: size, Sha256: hash.Sum(nil)})
		}
		if err != nil {
			return err
		}
		size += int64(len(chunk.GetData()))
		hash.Write(chunk.GetData())
	}
}

func (s *server) keep(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, size)
}

// put sends data in messages of size bytes. One message for all of it needs a
// limit as large as the largest blob, on every server; chunks need none raised.
func put(
	ctx context.Context, client feedv1.FeedServiceClient, data []byte, size int,
) (*feedv1.PutBlobResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(data, size) {
		err := stream.Send(&feedv1.Chunk{Data: part})
		if err == io.EOF {
			break // the server has ended the stream: CloseAndRecv says why
		}
		if err != nil {
			return nil, err // of this side: the server has not seen the chunk
		}
	}
	return stream.CloseAndRecv()
}

// leaveByCloseSend gives an upload up when read fails: its deferred CloseSend
// looks like clean-up, and says that the blob is complete.
func leaveByCloseSend(
	ctx context.Context, client feedv1.FeedServiceClient, read func() ([]byte, error),
) error {
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return err
	}
	defer stream.CloseSend()
	return send(stream, read)
}

// leaveByCancel gives an upload up, and says so.
func leaveByCancel(
	ctx context.Context, client feedv1.FeedServiceClient, read func() ([]byte, error),
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return err
	}
	return send(stream, read)
}

func send(stream putClient, read func() ([]byte, error)) error {
	for {
		data, err := read()
		if err != nil {
			return err
		}
		err = stream.Send(&feedv1.Chunk{Data: data})
		if err == io.EOF { // the server has ended the stream, and this says why
			_, err = stream.CloseAndRecv()
			return err
		}
		if err != nil {
			return err
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &server{ended: make(chan struct{}, 10)}
	srv := grpc.NewServer(append(serverOptions(), grpc.WaitForHandlers(true))...)
	feedv1.RegisterFeedServiceServer(srv, s)
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	say := func(format string, args ...any) {
		if ctx.Err() != nil {
			return // the reader is leaving
		}
		fmt.Fprintf(w, format+"\n", args...)
		select {
		case <-time.After(pace):
		case <-ctx.Done():
		}
	}
	handled := func() { // the handler of a stream has returned
		select {
		case <-s.ended:
		case <-ctx.Done():
		}
	}
	connect := func(opts ...grpc.DialOption) (feedv1.FeedServiceClient, func(), error) {
		conn, err := grpc.NewClient(lis.Addr().String(), append(opts,
			grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			return nil, nil, fmt.Errorf("client: %w", err)
		}
		return feedv1.NewFeedServiceClient(conn), func() { conn.Close() }, nil
	}
	plain, end, err := connect()
	if err != nil {
		return err
	}
	defer end()
	client, end, err := connect(dialOptions()...)
	if err != nil {
		return err
	}
	defer end()

	blob := make([]byte, 1<<19)
	say("A blob of %d B, and a server that takes messages of up to %d B.", len(blob), 256<<10)
	_, err = put(ctx, plain, blob, len(blob))
	handled()
	say("  in one message:              %v", err)
	_, err = put(ctx, client, blob, len(blob))
	handled()
	say("  and with this limit in Send: %v", err)
	receipt, err := put(ctx, client, blob, chunkSize)
	if err != nil {
		return err
	}
	handled()
	say("  in chunks of %d B:        the server has kept %d B", chunkSize, receipt.GetSize())

	say("A blob is given up after %d B:", chunkSize)
	for _, way := range []struct {
		name  string
		leave func(context.Context, feedv1.FeedServiceClient, func() ([]byte, error)) error
	}{{"leaveByCloseSend", leaveByCloseSend}, {"leaveByCancel", leaveByCancel}} {
		before := len(s.blobs())
		leaving, cancel := context.WithCancel(ctx)
		reads := 0
		err := way.leave(leaving, client, func() ([]byte, error) {
			if reads++; reads > 1 {
				return nil, errors.New("disk: bad sector")
			}
			return blob[:chunkSize], nil
		})
		handled()
		cancel()
		say("  %-17s returned %q, and the server keeps of it: %v", way.name, err, s.blobs()[before:])
	}
	return ctx.Err()
}

func (s *server) blobs() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept)
}
