// A server may end an upload before it has heard all of it, well or badly. The
// client's Send then returns io.EOF, which says that it ended and no more.
// CloseAndRecv says how.
//
// The program uploads events to a server that rejects the third one and to one
// that has enough of them after the third, with clients that make something of
// the EOF and with one that asks. At the end Send itself refuses an event.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type (
	uploadServer = grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]
	uploadClient = grpc.ClientStreamingClient[feedv1.Event, feedv1.UploadResult]
)

// server is a feed whose UploadEvents is one of the handlers below.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	upload func(uploadServer) error
}

func (s server) UploadEvents(stream uploadServer) error { return s.upload(stream) }

// rejectThird ends the upload with a status when it has seen the third event.
func rejectThird(stream uploadServer) error {
	if err := receive(stream, 3); err != nil {
		return err
	}
	return status.Error(codes.PermissionDenied, "alerts is read-only")
}

// takeThree has enough for one stream after three events. The receipt says
// which are stored, and the client may bring the rest on another stream.
func takeThree(stream uploadServer) error {
	if err := receive(stream, 3); err != nil {
		return err
	}
	return stream.SendAndClose(&feedv1.UploadResult{Received: 3})
}

func receive(stream uploadServer, n int) error {
	for range n {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	return nil
}

// sendAll stops at the first error. sent counts the Sends that returned nil,
// which is not how many events the server has.
func sendAll(stream uploadClient, events []*feedv1.Event) (sent int, err error) {
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			return sent, err
		}
		sent++
	}
	return sent, nil
}

// uploadReturningEOF hands the EOF on. The caller learns neither the reason
// nor that there is none: the server may have said OK.
func uploadReturningEOF(
	ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event,
) (sent int, err error) {
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, err
	}
	sent, err = sendAll(stream, events)
	if err != nil {
		return sent, err // and the stream stays open until ctx or the connection ends
	}
	_, err = stream.CloseAndRecv()
	return sent, err
}

// uploadTakingEOFForTheEnd knows from Recv that io.EOF is a good end. Send
// returns it for every end.
func uploadTakingEOFForTheEnd(
	ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event,
) (sent int, err error) {
	sent, err = uploadReturningEOF(ctx, client, events)
	if errors.Is(err, io.EOF) {
		return sent, nil
	}
	return sent, err
}

// upload asks how the stream ended, whether it has sent all or not.
func upload(
	ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event,
) (stored int32, sent int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // whatever happens below, the stream ends with this call
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, 0, err
	}
	sent, err = sendAll(stream, events)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, sent, err // of Send itself: this is the reason
	}
	receipt, err := stream.CloseAndRecv() // an early answer is an answer
	if err != nil {
		return 0, sent, err
	}
	return receipt.GetReceived(), sent, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second/2); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	all := events(10_000, 1000) // far more than Send takes on when nobody reads
	for _, peer := range []struct {
		what   string
		upload func(uploadServer) error
	}{
		{"A server that rejects the third of 10,000 events:", rejectThird},
		{"A server that has enough after the third:", takeThree},
	} {
		client, end, err := serve(server{upload: peer.upload})
		if err != nil {
			return err
		}
		defer end()
		say("%s", peer.what)
		sent, err := uploadReturningEOF(ctx, client, all)
		say("  the EOF returned:          sent %3d, error %v", sent, err)
		sent, err = uploadTakingEOFForTheEnd(ctx, client, all)
		say("  the EOF taken for the end: sent %3d, error %v", sent, err)
		stored, sent, err := upload(ctx, client, all)
		say("  CloseAndRecv asked:        sent %3d, stored %d, code %v %q",
			sent, stored, status.Code(err), status.Convert(err).Message())
	}

	client, end, err := serve(server{upload: takeThree})
	if err != nil {
		return err
	}
	defer end()
	say("A second event that is not UTF-8:")
	_, sent, err := upload(ctx, client, append(events(1, 10), &feedv1.Event{Id: "\xff"}))
	say("  Send is its own reason:    sent %3d, code %v %q",
		sent, status.Code(err), status.Convert(err).Message())
	return ctx.Err()
}

// events makes n events with bodies of size bytes.
func events(n, size int) []*feedv1.Event {
	body := strings.Repeat("x", size)
	var list []*feedv1.Event
	for i := range n {
		list = append(list, &feedv1.Event{Id: strconv.Itoa(i + 1), Topic: "alerts", Body: body})
	}
	return list
}

// serve starts a server on loopback and connects to it. The returned
// function ends both and waits for the handlers.
func serve(svc feedv1.FeedServiceServer) (feedv1.FeedServiceClient, func(), error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped

	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		srv.Stop()
		return nil, nil, fmt.Errorf("client: %w", err)
	}
	end := func() { conn.Close(); srv.Stop() }
	return feedv1.NewFeedServiceClient(conn), end, nil
}

// say prints a line and gives the reader time for it. To a reader who is
// leaving it says nothing.
func say(ctx context.Context, w io.Writer, pace time.Duration, format string, args ...any) {
	if ctx.Err() != nil {
		return
	}
	fmt.Fprintf(w, format+"\n", args...)
	select {
	case <-time.After(pace):
	case <-ctx.Done():
	}
}
