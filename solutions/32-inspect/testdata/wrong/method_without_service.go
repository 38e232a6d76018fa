// Wrong: gives the method without its service.
//
// Fails: TestAStreamIsLiveUntilItEnds
// Says: on the server Snapshot returned the method "Watch", want such as "/feed.v1.FeedService/Watch"
package main

import (
	"cmp"
	"context"
	"path"
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
	live map[*rpc]time.Time // when each began
}

// An rpc is what TagRPC knows. Its address tells it from all others, for one
// method may be called twice at one instant.
type rpc struct{ method string }

// key finds the rpc in the contexts that HandleRPC gets.
type key struct{}

func newLiveStreams() *liveStreams {
	return &liveStreams{live: map[*rpc]time.Time{}}
}

// TagRPC is called first for each RPC. Each later call of HandleRPC for it gets
// a context that comes from the one returned here.
func (l *liveStreams) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	// Nothing is kept yet: of a method that the server does not have there is
	// neither a Begin nor an End.
	return context.WithValue(ctx, key{}, &rpc{path.Base(info.FullMethodName)})
}

// HandleRPC is called for each event in the life of an RPC.
func (l *liveStreams) HandleRPC(ctx context.Context, event stats.RPCStats) {
	r, ok := ctx.Value(key{}).(*rpc)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch event := event.(type) {
	case *stats.Begin:
		if event.IsClientStream || event.IsServerStream {
			l.live[r] = event.BeginTime
		}
	case *stats.End:
		delete(l.live, r) // of a unary call there is nothing to delete
	}
}

// Snapshot returns the streams that are open now, the oldest first.
func (l *liveStreams) Snapshot() []Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Stream, 0, len(l.live))
	for r, began := range l.live {
		all = append(all, Stream{Method: r.method, Age: time.Since(began)})
	}
	slices.SortFunc(all, func(a, b Stream) int { return cmp.Compare(b.Age, a.Age) })
	return all
}

// A connection's end is not the end of its streams: a handler may run on.

func (l *liveStreams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (l *liveStreams) HandleConn(context.Context, stats.ConnStats) {}
