package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

type chatClient = grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]

// open opens a stream that ends with the test.
func open(l *lab.Lab, client feedv1.FeedServiceClient) (chatClient, context.CancelFunc) {
	l.Helper()
	ctx, cancel := context.WithCancel(l.Context())
	stream, err := client.Chat(ctx)
	if err != nil {
		l.Fatal(err)
	}
	return stream, cancel
}

// data lists the messages on the wire in the order in which they were sent:
// "client hello", "server echo: hello".
func data(link *lab.Link) []string {
	var all []string
	for _, f := range link.Frames() {
		if _, text, ok := strings.Cut(f.Text, `text:"`); ok && f.Type == "DATA" {
			all = append(all, f.From.String()+" "+strings.TrimSuffix(text, `"}`))
		}
	}
	return all
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows. Every step takes a while, so that the
// notes and the frames of one side never share an instant by accident.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(server{chat: func(stream chatServer) error {
			err := echo(notedServer{stream, link})
			link.Note(lab.Server, "the handler returns nil")
			return err
		}})
		client := notedClient{feedv1.NewFeedServiceClient(link.Dial()), link}
		if _, err := chat(l.Context(), client, []string{"hello", "world", "bye"}); err != nil {
			l.Fatal(err)
		}
		lab.Golden(t, "wire.txt", link.Ladder())
	})
}

type notedServer struct {
	chatServer
	link *lab.Link
}

func (s notedServer) Recv() (*feedv1.ChatMessage, error) {
	msg, err := s.chatServer.Recv()
	if err != nil {
		s.link.Note(lab.Server, "Recv: io.EOF")
	} else {
		time.Sleep(time.Millisecond) // what a reply takes
	}
	return msg, err
}

type notedClient struct {
	feedv1.FeedServiceClient
	link *lab.Link
}

func (c notedClient) Chat(ctx context.Context, opts ...grpc.CallOption) (chatClient, error) {
	stream, err := c.FeedServiceClient.Chat(ctx, opts...)
	return notedStream{stream, c.link}, err
}

type notedStream struct {
	chatClient
	link *lab.Link
}

func (s notedStream) Send(m *feedv1.ChatMessage) error {
	err := s.chatClient.Send(m)
	time.Sleep(4 * time.Millisecond)
	return err
}

func (s notedStream) CloseSend() error {
	s.link.Note(lab.Client, "CloseSend")
	return s.chatClient.CloseSend()
}

func (s notedStream) Recv() (*feedv1.ChatMessage, error) {
	msg, err := s.chatClient.Recv()
	if err != nil {
		s.link.Note(lab.Client, "Recv: io.EOF, the receiving goroutine ends")
	}
	return msg, err
}

func TestEachDirectionKeepsItsOrder(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var lines, want []string
		for i := range 500 {
			lines = append(lines, fmt.Sprint("line ", i))
			want = append(want, fmt.Sprint("echo: line ", i))
		}
		var heard []string
		client, _ := l.Connect(server{chat: func(stream chatServer) error {
			return echo(heardServer{stream, &heard})
		}})
		replies, err := chat(l.Context(), client, lines)
		if err != nil {
			l.Fatal(err)
		}
		if !slices.Equal(heard, lines) {
			l.Errorf("the server received the lines in another order: %q", heard)
		}
		if !slices.Equal(replies, want) {
			l.Errorf("the client received the replies in another order: %q", replies)
		}
		l.Logf("%d lines up and %d down, each in the order of its Sends", len(heard), len(replies))
	})
}

type heardServer struct {
	chatServer
	heard *[]string
}

func (s heardServer) Recv() (*feedv1.ChatMessage, error) {
	msg, err := s.chatServer.Recv()
	if err == nil {
		*s.heard = append(*s.heard, msg.GetText())
	}
	return msg, err
}

// The same client, and three orders of what the two sides say.
func TestTheDirectionsHaveNoCommonOrder(t *testing.T) {
	for _, tt := range []struct {
		name string
		chat func(chatServer) error
		want string
	}{
		{"before", greet, "server welcome, client hello, client world, server echo: hello, server echo: world"},
		{"between", echo, "client hello, server echo: hello, client world, server echo: world"},
		{"after", count, "client hello, client world, server 2 lines"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab.Run(t, func(l *lab.Lab) {
				client, link := l.Connect(server{chat: tt.chat})
				stream, cancel := open(l, client)
				defer cancel()
				between := 15 * time.Millisecond // longer than a round trip
				if tt.name == "before" {
					time.Sleep(between)
					between = 0
				}
				for _, line := range []string{"hello", "world"} {
					stream.Send(says("client", line))
					time.Sleep(between)
				}
				stream.CloseSend()
				for {
					if _, err := stream.Recv(); err != nil {
						break
					}
				}
				got := strings.Join(data(link), ", ")
				if got != tt.want {
					l.Errorf("the messages on the wire are %q, want %q", got, tt.want)
				}
				l.Log(got)
			})
		})
	}
}

func TestTheHandlerStartsBeforeTheFirstLine(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: greet})
		start := time.Now()
		stream, cancel := open(l, client)
		defer cancel()
		msg, err := stream.Recv()
		if took := time.Since(start); err != nil || msg.GetText() != "welcome" || took != 2*lab.Latency {
			l.Errorf("Recv returned %q, %v after %v, want the greeting after one round trip", msg.GetText(), err, took)
		}
		l.Logf("the client has sent nothing and hears %q after %v", msg.GetText(), time.Since(start))
	})
}

func TestAWaitingRecvDoesNotHoldUpSend(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: count})
		stream, cancel := open(l, client)
		defer cancel()
		start := time.Now()
		received := make(chan string, 1)
		go func() {
			msg, _ := stream.Recv() // waits for an hour
			received <- fmt.Sprintf("%q after %v", msg.GetText(), time.Since(start))
		}()
		for range 60 {
			if err := stream.Send(says("client", "a line a minute")); err != nil {
				l.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		stream.CloseSend()
		got := <-received
		if want := `"60 lines" after 1h0m0.010274s`; got != want {
			l.Errorf("the one pending Recv returned %s, want %s", got, want)
		}
		stream.Recv() // the EOF
		l.Logf("the Recv that began before the first Send returned %s", got)
	}, lab.Lasts(2*time.Hour))
}

func TestLockStepHangsOnAServerThatWaits(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(server{chat: count})
		ctx, cancel := context.WithCancel(l.Context())
		time.AfterFunc(24*time.Hour, cancel) // somebody presses Ctrl-C
		start := time.Now()
		replies, err := chatInLockStep(ctx, client, []string{"hello", "world"})
		if took := time.Since(start); took != 24*time.Hour || status.Code(err) != codes.Canceled {
			l.Errorf("lock-step returned %q, %v after %v, want Canceled after 24h", replies, err, took)
		}
		if got := data(link); len(got) != 1 {
			l.Errorf("the messages on the wire are %q, want the first line and no more", got)
		}
		l.Logf("after %v: sent %q, received %q", time.Since(start), data(link), replies)
	}, lab.Lasts(25*time.Hour))
}

func TestLockStepTakesTheWrongReply(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: greet})
		lines := []string{"hello", "world", "bye"}
		replies, err := chatInLockStep(l.Context(), client, lines)
		if want := []string{"welcome", "echo: hello", "echo: world"}; err != nil || !slices.Equal(replies, want) {
			l.Errorf("lock-step returned %q, %v, want no error and %q", replies, err, want)
		}
		l.Logf("lock-step: sent %q, received %q, error %v", lines, replies, err)
		replies, err = chat(l.Context(), client, lines)
		if err != nil || len(replies) != 4 {
			l.Errorf("chat returned %q, %v, want all four", replies, err)
		}
		l.Logf("at once:   sent %q, received %q, error %v", lines, replies, err)
	})
}

// Each link of the chain, and when.
func TestAGoodEndIsAChain(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var chain []string
		var start time.Time
		link := func(what string) { chain = append(chain, fmt.Sprintf("%v %s", time.Since(start), what)) }
		client, wire := l.Connect(server{chat: func(stream chatServer) error {
			if _, err := stream.Recv(); errors.Is(err, io.EOF) {
				link("server Recv io.EOF")
			}
			time.Sleep(time.Second) // the handler's last work
			link("handler returns")
			return nil
		}})
		stream, cancel := open(l, client)
		defer cancel()
		ended := make(chan bool)
		go func() {
			defer close(ended)
			if _, err := stream.Recv(); errors.Is(err, io.EOF) {
				link("client Recv io.EOF")
			}
		}()
		time.Sleep(time.Second)
		start = time.Now()
		link("CloseSend")
		stream.CloseSend()
		<-ended
		link("goroutine ends")
		want := []string{"0s CloseSend", "5.137ms server Recv io.EOF", "1.005137s handler returns", "1.010274s client Recv io.EOF", "1.010274s goroutine ends"}
		if !slices.Equal(chain, want) {
			l.Errorf("the chain is %q, want %q", chain, want)
		}
		var ends []string
		for _, f := range wire.Frames() {
			if f.EndStream {
				ends = append(ends, fmt.Sprintf("%v %s", f.From, f.Type))
			}
		}
		if want := []string{"client DATA", "server HEADERS"}; !slices.Equal(ends, want) {
			l.Errorf("END_STREAM is on %q, want %q", ends, want)
		}
		l.Logf("%s\nEND_STREAM on %s", strings.Join(chain, "\n"), strings.Join(ends, " and on "))
	})
}

func TestWithoutAHalfCloseNothingEnds(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: echo})
		stream, cancel := open(l, client)
		defer cancel()
		stream.Send(says("client", "bye"))
		stream.Recv()
		ended := make(chan bool)
		go func() { stream.Recv(); close(ended) }()
		time.Sleep(24 * time.Hour)
		leaks := strings.Join(l.Leaks(), "\n")
		for _, want := range []string{
			"1 of 1 RPCs never ended (Chat, opened at main_test.go:",
			"the server's Chat handler still runs: blocked in Recv at main.go:",
			"blocked in Recv at main_test.go:",
		} {
			if !strings.Contains(leaks, want) {
				l.Errorf("after a day the lab finds %q, want also %q", leaks, want)
			}
		}
		cancel()
		<-ended
		l.Logf("after a day:\n%s", leaks)
	}, lab.Lasts(25*time.Hour))
}

func TestAHandlerThatStaysKeepsTheClient(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		halfClosed := make(chan bool, 1)
		client, _ := l.Connect(server{chat: func(stream chatServer) error {
			if err := echo(stream); err != nil {
				return err
			}
			halfClosed <- true
			<-stream.Context().Done() // the handler that forgets to return
			return nil
		}})
		ctx, cancel := context.WithCancel(l.Context())
		time.AfterFunc(24*time.Hour, cancel)
		start := time.Now()
		replies, err := chat(ctx, client, []string{"hello"})
		if took := time.Since(start); took != 24*time.Hour || status.Code(err) != codes.Canceled || len(halfClosed) != 1 {
			l.Errorf("chat returned %q, %v after %v, want Canceled after 24h and a half-close", replies, err, took)
		}
		l.Logf("half-closed, all replies here, and no end for %v", time.Since(start))
	}, lab.Lasts(25*time.Hour))
}

func TestAHalfCloseLeavesTheOtherDirectionOpen(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: func(stream chatServer) error {
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				return err
			}
			for range 60 {
				time.Sleep(time.Minute)
				if err := stream.Send(says("server", "still here")); err != nil {
					return err
				}
			}
			return nil
		}})
		start := time.Now()
		replies, err := chat(l.Context(), client, nil)
		if err != nil || len(replies) != 60 {
			l.Errorf("chat returned %d replies and %v, want 60 and no error", len(replies), err)
		}
		l.Logf("%d replies in the %v after the half-close", len(replies), time.Since(start))
	}, lab.Lasts(2*time.Hour))
}

func TestSendAfterCloseSendFails(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: echo})
		stream, cancel := open(l, client)
		defer cancel()
		first, second := stream.CloseSend(), stream.CloseSend()
		if first != nil || second != nil {
			l.Errorf("CloseSend returned %v and then %v, want nil twice", first, second)
		}
		err := stream.Send(says("client", "one more thing"))
		if status.Code(err) != codes.Internal {
			l.Errorf("Send after CloseSend returned %v, want Internal", err)
		}
		l.Log(err)
	})
}

func TestReturningEndsBothDirections(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(server{chat: func(stream chatServer) error {
			_, err := stream.Recv()
			return err // nil after one line, with the client still sending
		}})
		stream, cancel := open(l, client)
		defer cancel()
		stream.Send(says("client", "hello"))
		time.Sleep(time.Second)
		sent := stream.Send(says("client", "world"))
		_, received := stream.Recv()
		if !errors.Is(sent, io.EOF) || !errors.Is(received, io.EOF) {
			l.Errorf("Send returned %v and Recv %v, want io.EOF from both", sent, received)
		}
		var last []string
		for _, f := range link.Frames() {
			if f.From == lab.Server {
				last = append(last, strings.TrimSpace(f.Type+" "+f.Text))
			}
		}
		if want := []string{"HEADERS :status 200  grpc-status 0", "RST_STREAM NO_ERROR"}; !slices.Equal(last, want) {
			l.Errorf("the server sent %q, want %q", last, want)
		}
		l.Logf("the server sent %q; Send: %v, Recv: %v", last, sent, received)
	})
}

func TestTheHandlersErrorIsInRecv(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: func(stream chatServer) error {
			stream.Recv()
			stream.Send(says("server", "first the reply"))
			return status.Error(codes.ResourceExhausted, "the room is full")
		}})
		stream, cancel := open(l, client)
		defer cancel()
		stream.Send(says("client", "hello"))
		time.Sleep(time.Second)
		sent := stream.Send(says("client", "world"))
		reply, first := stream.Recv()
		_, second := stream.Recv()
		if !errors.Is(sent, io.EOF) || status.Code(sent) == codes.ResourceExhausted {
			l.Errorf("Send returned %v, want io.EOF and no status", sent)
		}
		if first != nil || status.Code(second) != codes.ResourceExhausted || status.Convert(second).Message() != "the room is full" {
			l.Errorf("Recv returned %v and then %v, want the reply and then the handler's status", first, second)
		}
		l.Logf("Send: %v; Recv: %q; Recv: %v", sent, reply.GetText(), second)
	})
}

// Why chat need not keep the error of Send: as long as the server has not ended
// the stream, Recv has it.
func TestRecvAlsoTellsWhatSendCouldNotSend(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: echo})
		stream, cancel := open(l, client)
		defer cancel()
		sent := stream.Send(says("client", "\xff")) // not UTF-8: fails on the client's own side
		_, received := stream.Recv()
		if status.Code(sent) != codes.Internal || received == nil || received.Error() != sent.Error() {
			l.Errorf("Send returned %v and Recv %v, want Internal from both", sent, received)
		}
		l.Logf("Send: %v; Recv: %v", sent, received)
	})
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: func(chatServer) error { return nil }})
		stream, cancel := open(l, client)
		defer cancel()
		time.Sleep(time.Second) // the server's OK is here
		sent := stream.Send(says("client", "\xff"))
		_, received := stream.Recv()
		if status.Code(sent) != codes.Internal || received != io.EOF {
			l.Errorf("after the server's OK Send returned %v and Recv %v, want Internal and io.EOF", sent, received)
		}
		l.Logf("after the server's OK Send: %v; Recv: %v", sent, received)
	})
}

// What a client that dies or leaves looks like to the handler: not an EOF.
func TestOnlyAHalfCloseIsAnEOF(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(cancel func(), link *lab.Link)
		late time.Duration
	}{
		{"cancelled", func(cancel func(), _ *lab.Link) { cancel() }, lab.Latency},
		{"cut off", func(_ func(), link *lab.Link) { link.Cut() }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab.Run(t, func(l *lab.Lab) {
				ended := make(chan error, 1)
				client, link := l.Connect(server{chat: func(stream chatServer) error {
					err := echo(stream)
					ended <- err
					return err
				}})
				stream, cancel := open(l, client)
				defer cancel()
				stream.Send(says("client", "hello"))
				time.Sleep(time.Second)
				start := time.Now()
				tt.end(cancel, link)
				err := <-ended
				if took := time.Since(start); status.Code(err) != codes.Canceled || took != tt.late {
					l.Errorf("the handler's Recv returned %v after %v, want Canceled after %v", err, took, tt.late)
				}
				l.Logf("%s: the handler's Recv returned %v after %v", tt.name, err, time.Since(start))
			})
		})
	}
}
