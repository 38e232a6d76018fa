// Wrong: removes a stream at each End, also at that of a unary call.
//
// Fails: TestAUnaryCallIsNoStream
// Says: a Watch is open, and a unary call has ended: on the server Snapshot returned none, want 1
package main

import (
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
	live []began // in the order in which they began
}

type began struct {
	method string
	at     time.Time
}

// key finds the rpc in the contexts that HandleRPC gets.
type key struct{}

func newLiveStreams() *liveStreams {
	return &liveStreams{}
}

// TagRPC is called first for each RPC. Each later call of HandleRPC for it gets
// a context that comes from the one returned here.
func (l *liveStreams) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	// Nothing is kept yet: of a method that the server does not have there is
	// neither a Begin nor an End.
	return context.WithValue(ctx, key{}, info.FullMethodName)
}

// HandleRPC is called for each event in the life of an RPC.
func (l *liveStreams) HandleRPC(ctx context.Context, event stats.RPCStats) {
	method, ok := ctx.Value(key{}).(string)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch event := event.(type) {
	case *stats.Begin:
		if event.IsClientStream || event.IsServerStream {
			l.live = append(l.live, began{method, event.BeginTime})
		}
	case *stats.End:
		i := slices.IndexFunc(l.live, func(b began) bool { return b.at.Equal(event.BeginTime) })
		if i = max(i, 0); i < len(l.live) {
			l.live = slices.Delete(l.live, i, i+1)
		}
	}
}

// Snapshot returns the streams that are open now, the oldest first.
func (l *liveStreams) Snapshot() []Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Stream, 0, len(l.live))
	for _, b := range l.live {
		all = append(all, Stream{Method: b.method, Age: time.Since(b.at)})
	}
	return all
}

// A connection's end is not the end of its streams: a handler may run on.

func (l *liveStreams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (l *liveStreams) HandleConn(context.Context, stats.ConnStats) {}
