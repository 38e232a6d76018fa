// Wrong: replaces its map without a lock: of two changes at once one is lost.
//
// Fails: TestManyStreamsAtOnce
// Says: was a change lost between two goroutines?
package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
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
}

type liveStreams struct {
	live atomic.Pointer[map[*rpc]struct{}]
}

// key finds l's rpc in the contexts that HandleRPC gets: one per liveStreams.
type key struct{ l *liveStreams }

func newLiveStreams() *liveStreams {
	l := &liveStreams{}
	l.live.Store(&map[*rpc]struct{}{})
	return l
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
		r.began = event.BeginTime
		m := maps.Clone(*l.live.Load())
		m[r] = struct{}{}
		l.live.Store(&m)
	case *stats.End:
		m := maps.Clone(*l.live.Load())
		delete(m, r)
		l.live.Store(&m)
	}
}

// Snapshot returns the streams that are open now, the oldest first.
func (l *liveStreams) Snapshot() []Stream {
	now := time.Now()
	all := make([]Stream, 0, len(*l.live.Load()))
	for r := range *l.live.Load() {
		all = append(all, Stream{Method: r.method, Age: now.Sub(r.began)})
	}
	slices.SortFunc(all, func(a, b Stream) int { return cmp.Compare(b.Age, a.Age) })
	return all
}

func (l *liveStreams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (l *liveStreams) HandleConn(context.Context, stats.ConnStats) {}
