// Wrong: the deferred calls run in the other order: off the list while answers are still being sent.
//
// Fails: TestChatAnswersAllBeforeItEnds
// Says: Chat sends an answer to carol, and names returned [] at that moment
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
	out := make(chan string, 64)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(out)
	defer leave() // runs first: gone while its answers are still sent
	wg.Go(func() {
		for text := range out {
			stream.Send(&feedv1.ChatMessage{From: "room", Text: text})
		}
	})
	for {
		out <- msg.GetText()
		msg, err = stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
