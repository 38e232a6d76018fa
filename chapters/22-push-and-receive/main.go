// A handler that must listen and speak: lines come by Recv, news by a channel.
// Recv has no timeout and no select, so who waits in it does nothing else.
//
// A client says a line now and then, and there are news in between. Each
// handler is another way to attend to both; the program prints how late the
// news was, and how often the handler's loop turned for that.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]

// A chatter is one way to attend to a stream and to the news of a room. It
// calls turn each time that its loop begins anew.
type chatter func(stream chatServer, news <-chan string, turn func()) error

// chatInTurns listens, and speaks when it has heard something.
func chatInTurns(stream chatServer, news <-chan string, turn func()) error {
	for {
		turn()
		msg, err := stream.Recv() // waits, and the news waits with it
		if err != nil {
			return notEOF(err)
		}
		if err := stream.Send(says("heard " + msg.GetText())); err != nil {
			return err
		}
		if err := sendWaiting(stream, news); err != nil {
			return err
		}
	}
}

// sendWaiting sends the news that is there.
func sendWaiting(stream chatServer, news <-chan string) error {
	for {
		select {
		case text := <-news:
			if err := stream.Send(says(text)); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// An inbox is the stream's lines as a channel.
type inbox struct {
	lines <-chan string
	err   error // why lines was closed: nil for a half-close
}

// listen starts the goroutine that receives, and hands over. It waits in Recv
// or for its reader, and the return of the handler ends both waits, by the end
// of stream.Context(). Until then the handler must not wait for it.
func listen(stream chatServer) *inbox {
	lines := make(chan string)
	in := &inbox{lines: lines}
	go func() {
		defer close(lines)
		for {
			msg, err := stream.Recv()
			if err != nil {
				in.err = notEOF(err)
				return
			}
			select {
			case lines <- msg.GetText():
			case <-stream.Context().Done():
				in.err = stream.Context().Err()
				return
			}
		}
	}()
	return in
}

// chatSpinning asks both in a loop that never waits.
func chatSpinning(stream chatServer, news <-chan string, turn func()) error {
	in := listen(stream)
	for {
		turn()
		if err := sendWaiting(stream, news); err != nil {
			return err
		}
		select {
		case line, ok := <-in.lines:
			if !ok {
				return in.err
			}
			if err := stream.Send(says("heard " + line)); err != nil {
				return err
			}
		default: // no line yet: ask again
		}
	}
}

// chatPolling returns a chatter that looks for news each time that a tick
// comes, and hears its client at once.
func chatPolling(each time.Duration) chatter {
	return func(stream chatServer, news <-chan string, turn func()) error {
		tick := time.NewTicker(each)
		defer tick.Stop()
		in := listen(stream)
		for {
			turn()
			select {
			case line, ok := <-in.lines:
				if !ok {
					return in.err
				}
				if err := stream.Send(says("heard " + line)); err != nil {
					return err
				}
			case <-tick.C:
				if err := sendWaiting(stream, news); err != nil {
					return err
				}
			}
		}
	}
}

// chat waits for everything at once, and is the only one that sends.
func chat(stream chatServer, news <-chan string, turn func()) error {
	in := listen(stream)
	for {
		turn()
		text := ""
		select {
		case line, ok := <-in.lines:
			if !ok {
				return in.err
			}
			text = "heard " + line
		case text = <-news:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err := stream.Send(says(text)); err != nil {
			return err
		}
	}
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// server is a feed whose Chat is one of the ways above.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	chat func(chatServer) error
}

func (s server) Chat(stream chatServer) error { return s.chat(stream) }

func says(text string) *feedv1.ChatMessage { return &feedv1.ChatMessage{Text: text} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second/4); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. pace is how long the client is silent between two
// lines, halfway through which the room has news.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	pace = max(pace, 4*time.Millisecond)
	fmt.Fprintf(w, "The client says a line each %v, and halfway through the room has news.\n", pace)
	for _, way := range []struct {
		name string
		chat chatter
	}{
		{"chatInTurns", chatInTurns},
		{"chatSpinning", chatSpinning},
		{"chatPolling", chatPolling(pace / 5 * 2)},
		{"chat", chat},
	} {
		late, turns, err := hold(ctx, way.chat, pace)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%-12s  the news comes %6.1f ms late, in %7d turns of the loop\n", way.name, late.Seconds()*1000, turns)
	}
	return nil
}

// hold holds one chat of four lines with news between them, and returns how
// late the news arrived on average, and how often the handler's loop turned.
func hold(ctx context.Context, chat chatter, pace time.Duration) (time.Duration, int64, error) {
	const rounds = 4
	news := make(chan string, rounds)
	var turns atomic.Int64
	client, end, err := serve(server{chat: func(stream chatServer) error {
		return chat(stream, news, func() { turns.Add(1) })
	}})
	if err != nil {
		return 0, 0, err
	}
	defer end()
	var speaker sync.WaitGroup
	defer speaker.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the wait
	stream, err := client.Chat(ctx)
	if err != nil {
		return 0, 0, err
	}
	speaker.Go(func() { // if a Send fails, Recv says why
		for range rounds {
			stream.Send(says("a line"))
			pause(ctx, pace/2)
			news <- time.Now().Format(time.RFC3339Nano) // has room for all
			pause(ctx, pace/2)
		}
		stream.Send(says("bye"))
	})
	var late time.Duration
	for got := 0; got < rounds; {
		msg, err := stream.Recv()
		if err != nil {
			return 0, 0, err
		}
		if at, err := time.Parse(time.RFC3339Nano, msg.GetText()); err == nil {
			late += time.Since(at) / rounds
			got++
		}
	}
	return late, turns.Load(), nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
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
