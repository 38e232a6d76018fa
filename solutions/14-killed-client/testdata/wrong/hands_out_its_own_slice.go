// Wrong: names returns the slice that presence itself works with.
//
// Fails: TestChatAnswersAndListsItsClient
// Says: changed by a caller of names
package main

import (
	"errors"
	"io"
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

type presence struct {
	mu     sync.Mutex
	here   map[string]int
	sorted []string // kept, so that names is cheap
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
	if p.here[name]++; p.here[name] == 1 {
		i, _ := slices.BinarySearch(p.sorted, name)
		p.sorted = slices.Insert(p.sorted, i, name)
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.here[name]--; p.here[name] == 0 {
			delete(p.here, name)
			i, _ := slices.BinarySearch(p.sorted, name)
			p.sorted = slices.Delete(p.sorted, i, i+1)
		}
	}), nil
}

// names returns who is here, each name once and in order.
func (p *presence) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sorted
}

// Chat answers each message with its own text. The first one names the client,
// who is here from then on until Chat returns.
func (s *server) Chat(stream grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]) error {
	msg, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	leave, err := s.presence.join(msg.GetFrom())
	if err != nil {
		return err
	}
	defer leave()
	for {
		if err := stream.Send(&feedv1.ChatMessage{From: "room", Text: msg.GetText()}); err != nil {
			return err
		}
		msg, err = stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
