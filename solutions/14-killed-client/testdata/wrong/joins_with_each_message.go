// Wrong: joins with each message and leaves once.
//
// Fails: TestChatAnswersAndListsItsClient
// Says: ben's second message came from benjamin, and names returned ["Carol Lee" "anna" "ben" "benjamin"]
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

// presence knows who is here: a name is, while at least one stream of it is.
type presence struct {
	mu   sync.Mutex
	here map[string]int // how many streams
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
	// A count: of a client that was killed and is back there are two streams,
	// until the server learns that the old one is dead.
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
	var all []string
	for name := range p.here {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// Chat answers each message with its own text. The first one names the client,
// who is here from then on until Chat returns.
func (s *server) Chat(stream grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]) error {
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // a killed client ends here, or in Send
		}
		{
			leave, err := s.presence.join(msg.GetFrom())
			if err != nil {
				return err
			}
			defer leave() // on every way out: a list of endings would be one short
		}
		if err := stream.Send(&feedv1.ChatMessage{From: "room", Text: msg.GetText()}); err != nil {
			return err
		}
	}
}
