// Right: replaces the whole list with each change.
package main

import (
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"

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
	streams atomic.Pointer[[]string]
}

func newPresence() *presence {
	p := &presence{}
	p.streams.Store(&[]string{})
	return p
}

func (p *presence) update(f func([]string) []string) {
	for {
		old := p.streams.Load()
		next := f(slices.Clone(*old))
		if p.streams.CompareAndSwap(old, &next) {
			return
		}
	}
}

// join notes that a stream of that name is here, and returns how it leaves. To
// leave more than once counts once. An empty name is an InvalidArgument.
func (p *presence) join(name string) (leave func(), err error) {
	if name == "" {
		return nil, status.Error(codes.InvalidArgument, "a name is needed")
	}
	p.update(func(all []string) []string { return append(all, name) })
	return sync.OnceFunc(func() {
		p.update(func(all []string) []string {
			i := slices.Index(all, name)
			return slices.Delete(all, i, i+1)
		})
	}), nil
}

// names returns who is here, each name once and in order.
func (p *presence) names() []string {
	all := slices.Clone(*p.streams.Load())
	slices.Sort(all)
	return slices.Compact(all)
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
