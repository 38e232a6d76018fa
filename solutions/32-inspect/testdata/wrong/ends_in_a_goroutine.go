// Wrong: removes a stream in a goroutine, some time after HandleRPC has returned.
//
// Fails: TestNothingIsKeptOfWhatHasEnded
// Says: HandleRPC has returned from the last event of an RPC, and Snapshot returned 1 (Watch
// Says: s), want none
package main

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/stats"
)

// A Stream is an RPC that is open and not unary.
type Stream struct {
	Method string        // "/feed.v1.FeedService/Watch"
	Age    time.Duration // since it began
}

type rpc struct {
	method string
	began  time.Time
}

type liveStreams struct {
	mu   sync.Mutex
	live map[*rpc]struct{}
}

// key finds l's rpc in the contexts that HandleRPC gets: one per liveStreams.
type key struct{ l *liveStreams }

func newLiveStreams() *liveStreams {
	return &liveStreams{live: map[*rpc]struct{}{}}
}

func (l *liveStreams) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, key{l}, &rpc{method: info.FullMethodName})
}

func (l *liveStreams) HandleRPC(ctx context.Context, event stats.RPCStats) {
	r, ok := ctx.Value(key{l}).(*rpc)
	if !ok {
		return
	}
	switch event := event.(type) {
	case *stats.Begin:
		if !event.IsClientStream && !event.IsServerStream {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		r.began = event.BeginTime
		l.live[r] = struct{}{}
	case *stats.End:
		go func() { // do not block gRPC
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.live, r)
		}()
	}
}

// Snapshot returns the streams that are open now, the oldest first.
func (l *liveStreams) Snapshot() []Stream {
	now := time.Now()
	l.mu.Lock()
	all := make([]Stream, 0, len(l.live))
	for r := range l.live {
		all = append(all, Stream{Method: r.method, Age: now.Sub(r.began)})
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b Stream) int { return cmp.Compare(b.Age, a.Age) })
	return all
}

func (l *liveStreams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (l *liveStreams) HandleConn(context.Context, stats.ConnStats) {}
