// This program serves four kinds of feed on loopback, uploads ten thousand
// events to each with your upload, and prints what each side saw.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// uploadServer is the handler's side of an upload.
type uploadServer = grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]

// server is a feed that has an UploadEvents and nothing else.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	srv  *grpc.Server
	end  func(*server, uploadServer, int) error // after the last event of a stream
	most int                                    // events for a stream
}

// UploadEvents receives until the client has half-closed or the server has
// enough, and ends the stream in the server's way.
func (s *server) UploadEvents(stream uploadServer) error {
	n := 0
	for n < s.most {
		_, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fmt.Printf("  server: received %d, and the stream is gone: %v\n", n, err)
			return err
		}
		n++
	}
	err := s.end(s, stream, n)
	fmt.Printf("  server: received %d, and the handler returns %v\n", n, err)
	return err
}

// thanks ends a stream with OK and a receipt for all that was received.
func thanks(_ *server, stream uploadServer, n int) error {
	return stream.SendAndClose(&feedv1.UploadResult{Received: int32(n)})
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
	for _, peer := range []struct {
		what string
		most int
		end  func(*server, uploadServer, int) error
	}{
		{"takes all", 1_000_000, thanks},
		{"takes 4,000 events a stream", 4000, thanks},
		{"rejects the third event", 3, func(*server, uploadServer, int) error {
			return status.Error(codes.PermissionDenied, "alerts is read-only")
		}},
		{"dies after the third event", 3, func(s *server, stream uploadServer, _ int) error {
			go s.srv.Stop() // waits for this handler
			<-stream.Context().Done()
			return stream.Context().Err()
		}},
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Printf("A server that %s:\n", peer.what)
		if err := try(ctx, &server{most: peer.most, end: peer.end}); err != nil {
			return err
		}
	}
	return nil
}

// try runs your upload against one server, for at most five seconds.
func try(ctx context.Context, s *server) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.srv = grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(s.srv, s)
	go s.srv.Serve(lis) // returns when the server is stopped
	defer s.srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	body := strings.Repeat("x", 1000)
	var events []*feedv1.Event
	for i := range 10_000 {
		events = append(events, &feedv1.Event{Id: fmt.Sprint(i + 1), Topic: "alerts", Body: body})
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stored, err := upload(ctx, feedv1.NewFeedServiceClient(conn), events)
	fmt.Printf("  client: upload returned %d, error %v\n", stored, err)
	return nil
}
