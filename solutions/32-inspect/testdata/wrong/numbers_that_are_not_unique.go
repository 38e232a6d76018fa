// Wrong: numbers its RPCs, and reads the number of another liveStreams where two serve one server.
//
// Fails: TestTwoLiveStreamsDoNotShare
// Says: a server has 2 liveStreams, 2 Chats are open there, and this one serves another server with a third Chat: on the server Snapshot returned 2
package main

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
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
	id     uint64
}

type liveStreams struct {
	mu   sync.Mutex
	live map[uint64]*rpc
	next atomic.Uint64
}

// key finds l's rpc in the contexts that HandleRPC gets: one per liveStreams.
type key struct{}

func newLiveStreams() *liveStreams {
	return &liveStreams{live: map[uint64]*rpc{}}
}

func (l *liveStreams) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, key{}, &rpc{method: info.FullMethodName, id: l.next.Add(1)})
}

func (l *liveStreams) HandleRPC(ctx context.Context, event stats.RPCStats) {
	r, ok := ctx.Value(key{}).(*rpc)
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
		l.live[r.id] = r
	case *stats.End:
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.live, r.id)
	}
}

// Snapshot returns the streams that are open now, the oldest first.
func (l *liveStreams) Snapshot() []Stream {
	now := time.Now()
	l.mu.Lock()
	all := make([]Stream, 0, len(l.live))
	for _, r := range l.live {
		all = append(all, Stream{Method: r.method, Age: now.Sub(r.began)})
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b Stream) int { return cmp.Compare(b.Age, a.Age) })
	return all
}

func (l *liveStreams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (l *liveStreams) HandleConn(context.Context, stats.ConnStats) {}
