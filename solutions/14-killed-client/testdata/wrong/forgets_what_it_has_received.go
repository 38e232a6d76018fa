// Wrong: a goroutine receives, and Chat ends when it has ended, with messages still in the queue.
//
// Fails: TestChatAnswersAllBeforeItEnds
// Says: did not get their 144 answers, in order, before the end
package main

import (
	"errors"
	"io"
	"maps"
	"slices"
	"sync"

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
	in := make(chan *feedv1.ChatMessage, 16)
	ended := make(chan error, 1)
	go func() {
		for {
			msg, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case in <- msg:
			case <-stream.Context().Done():
				ended <- stream.Context().Err()
				return
			}
		}
	}()
	leave := func() {}
	defer func() { leave() }()
	joined := false
	for {
		select {
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		default:
		}
		select {
		case err := <-ended:

			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case msg := <-in:
			if !joined {
				l, err := s.presence.join(msg.GetFrom())
				if err != nil {
					return err
				}
				leave, joined = l, true
			}
			if err := stream.Send(&feedv1.ChatMessage{From: "room", Text: msg.GetText()}); err != nil {
				return err
			}
		}
	}
}
