package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// both runs a test over the virtual network and over loopback TCP.
func both(t *testing.T, body func(*Lab)) {
	t.Run("lab", func(t *testing.T) { Run(t, body) })
	t.Run("TCP", func(t *testing.T) { OverTCP(t, body) })
}

// code is what a caller sees of an error: "EOF", "nil" or a status code.
func code(err error) string {
	switch {
	case err == nil:
		return "nil"
	case errors.Is(err, io.EOF):
		return "EOF"
	}
	return status.Code(err).String()
}

// sendUntilError sends 1 KiB messages for as long as that works.
func sendUntilError(send func(*feedv1.ChatMessage) error) error {
	for {
		if err := send(sized(1024)); err != nil {
			return err
		}
	}
}

// A stream that ends in one of six ways, seen from a call that is pending at
// that moment. One call at a time: a handler that floods its client would hold
// back its own status, which travels behind the data.
func TestEndingsAgree(t *testing.T) {
	type scene struct {
		cancel func()
		conn   *grpc.ClientConn
		srv    *grpc.Server
		link   *Link
		fail   chan error // what the handler returns
	}
	// What the four calls return, in this order.
	calls := []string{"client Recv", "client Send", "server Recv", "server Send"}
	for name, tt := range map[string]struct {
		end  func(scene)
		want [4]string
	}{
		"client cancels":       {func(s scene) { s.cancel() }, [4]string{"Canceled", "EOF", "Canceled", "Canceled"}},
		"connection is closed": {func(s scene) { s.conn.Close() }, [4]string{"Canceled", "EOF", "Canceled", "Unavailable"}},
		"server stops":         {func(s scene) { s.srv.Stop() }, [4]string{"Unavailable", "EOF", "Canceled", "Unavailable"}},
		"network is cut":       {func(s scene) { s.link.Cut() }, [4]string{"Unavailable", "EOF", "Canceled", "Unavailable"}},
		"handler fails":        {func(s scene) { s.fail <- status.Error(codes.Aborted, "") }, [4]string{"Aborted", "EOF", "Canceled", "Canceled"}},
		"deadline passes":      {func(scene) {}, [4]string{"DeadlineExceeded", "EOF", "Canceled", "Canceled"}},
	} {
		for i, call := range calls {
			t.Run(name+"/"+call, func(t *testing.T) {
				both(t, func(l *Lab) {
					s := scene{link: l.NewLink(), fail: make(chan error)}
					entered, result := make(chan bool, 1), make(chan error, 1)
					s.srv = s.link.Serve(service{chat: func(stream chatServer) error {
						entered <- true
						switch call {
						case "server Recv":
							go func() { _, err := stream.Recv(); result <- err }()
						case "server Send":
							go func() { result <- sendUntilError(stream.Send) }()
						}
						select {
						case err := <-s.fail:
							return err
						case <-stream.Context().Done():
							return stream.Context().Err()
						}
					}})
					s.conn = s.link.Dial()
					var stream grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]
					for limit := 50 * time.Millisecond; ; limit *= 2 {
						ctx, cancel := context.WithCancel(context.Background())
						if name == "deadline passes" {
							ctx, cancel = context.WithTimeout(ctx, limit)
						}
						defer cancel()
						s.cancel = cancel
						var err error
						if stream, err = feedv1.NewFeedServiceClient(s.conn).Chat(ctx); err == nil {
							break
						}
						// On a busy machine it passes while TCP is not yet connected.
						if l.virtual || status.Code(err) != codes.DeadlineExceeded {
							l.Fatal(err)
						}
					}
					<-entered
					switch call {
					case "client Recv":
						go func() { _, err := stream.Recv(); result <- err }()
					case "client Send":
						go func() { result <- sendUntilError(stream.Send) }()
					}
					if l.virtual {
						time.Sleep(time.Millisecond) // the call is pending
					}
					tt.end(s)
					got := code(<-result)
					if name == "deadline passes" && strings.HasPrefix(call, "server") && got == "DeadlineExceeded" {
						got = "Canceled" // the server has a timer too: it runs out as the client's reset arrives
					}
					if got != tt.want[i] {
						l.Errorf("%s returned %s, want %s", call, got, tt.want[i])
					}
				})
			})
		}
	}
}

// A sender gets as far as its own quota of 64 KiB and the peer's window of
// 65,535 bytes together, and the message that crosses the line still passes.
func TestSendsBeforeOneBlocksAgree(t *testing.T) {
	for _, tt := range []struct{ wire, want int }{{1008, 131}, {1032, 128}, {16393, 8}, {65545, 2}, {1 << 20, 1}} {
		t.Run(fmt.Sprint(tt.wire), func(t *testing.T) {
			both(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: untilCancelled})
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				stream, err := client.Chat(ctx)
				if err != nil {
					l.Fatal(err)
				}
				sent := make(chan int)
				go func() {
					for n := 1; stream.Send(sized(tt.wire)) == nil; n++ {
						select {
						case sent <- n:
						case <-ctx.Done():
							return
						}
					}
				}()
				for range tt.want { // on a busy machine over TCP they take their time
					<-sent
				}
				select {
				case n := <-sent:
					l.Errorf("message %d of %d B was sent, want %d before one blocks", n, tt.wire, tt.want)
				case <-time.After(200 * time.Millisecond):
				}
			})
		})
	}
}
