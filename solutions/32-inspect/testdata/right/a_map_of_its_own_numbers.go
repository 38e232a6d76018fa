// Right: numbers the RPCs.
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

// liveStreams knows the streams that are open: grpc.StatsHandler makes it see
// those of a server, grpc.WithStatsHandler those of a connection. One value may
// serve many of both.
type liveStreams struct {
	mu   sync.Mutex
	live map[uint64]Stream // Age is not set
	when map[uint64]time.Time
	last uint64
}

type rpc struct {
	method string
	number uint64
}

// key finds the rpc of a liveStreams in the contexts that HandleRPC gets.
type key struct{ *liveStreams }

func newLiveStreams() *liveStreams {
	return &liveStreams{live: map[uint64]Stream{}, when: map[uint64]time.Time{}}
}

// TagRPC is called first for each RPC. Each later call of HandleRPC for it gets
// a context that comes from the one returned here.
func (l *liveStreams) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	// Nothing is kept yet: of a method that the server does not have there is
	// neither a Begin nor an End.
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	return context.WithValue(ctx, key{l}, rpc{info.FullMethodName, l.last})
}

// HandleRPC is called for each event in the life of an RPC.
func (l *liveStreams) HandleRPC(ctx context.Context, event stats.RPCStats) {
	r, ok := ctx.Value(key{l}).(rpc)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch event := event.(type) {
	case *stats.Begin:
		if event.IsClientStream || event.IsServerStream {
			l.live[r.number] = Stream{Method: r.method}
			l.when[r.number] = event.BeginTime
		}
	case *stats.End:
		delete(l.live, r.number)
		delete(l.when, r.number)
	}
}

// Snapshot returns the streams that are open now, the oldest first.
func (l *liveStreams) Snapshot() []Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Stream, 0, len(l.live))
	for n, s := range l.live {
		s.Age = time.Since(l.when[n])
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Stream) int { return cmp.Compare(b.Age, a.Age) })
	return all
}

// A connection's end is not the end of its streams: a handler may run on.

func (l *liveStreams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (l *liveStreams) HandleConn(context.Context, stats.ConnStats) {}
