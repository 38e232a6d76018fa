// Wrong: ends the stream of a client that says nothing for ten minutes.
//
// Fails: TestChatAnswersAndListsItsClient
// Says: "anna" says "two days later", and the client's Send returned EOF: Chat has ended the stream
package main

import (
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

var (
	_ = codes.OK
	_ = status.Code
)

// presence knows who is here: a name is, while at least one stream of it is.
type presence struct {
	mu   sync.Mutex
	here map[string]int
}

func newPresence() *presence { return &presence{here: map[string]int{}} }

// join notes that a stream of that name is here, and returns how it leaves. To
// leave more than once counts once. An empty name is an InvalidArgument.
func (p *presence) join(name string) (leave func(), err error) {
	if name == "" {
		return nil, status.Error(codes.InvalidArgument, "a name is needed")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.here[name]++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.here[name]--; p.here[name] == 0 {
			delete(p.here, name)
		}
	}), nil
}

// names returns who is here, each name once and in order.
func (p *presence) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.here))
}

// Chat answers each message with its own text. The first one names the client,
// who is here from then on until Chat returns.
func (s *server) Chat(stream grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]) error {
	type got struct {
		msg *feedv1.ChatMessage
		err error
	}
	in := make(chan got, 1)
	go func() {
		for {
			msg, err := stream.Recv()
			select {
			case in <- got{msg, err}:
			case <-stream.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	var leave func()
	for {
		select {
		case g := <-in:
			if errors.Is(g.err, io.EOF) {
				return nil
			}
			if g.err != nil {
				return g.err
			}
			if leave == nil {
				l, err := s.presence.join(g.msg.GetFrom())
				if err != nil {
					return err
				}
				leave = l
				defer leave()
			}
			if err := stream.Send(&feedv1.ChatMessage{From: "room", Text: g.msg.GetText()}); err != nil {
				return err
			}
		case <-time.After(10 * time.Minute):
			return status.Error(codes.DeadlineExceeded, "silent for too long")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
