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
	live map[string]time.Time // when each began, by its method
	// TODO: two streams may have one method, and one may end before the other.
}

// key finds the method in the contexts that HandleRPC gets.
type key struct{}

func newLiveStreams() *liveStreams {
	return &liveStreams{live: map[string]time.Time{}}
}

// TagRPC is called first for each RPC. Each later call of HandleRPC for it gets
// a context that comes from the one returned here.
func (l *liveStreams) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
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
		// TODO: a unary call is no stream.
		l.live[method] = event.BeginTime
	case *stats.OutTrailer:
		// TODO: is this always the last that happens?
		delete(l.live, method)
	}
}

// Snapshot returns the streams that are open now, in the order of their methods.
func (l *liveStreams) Snapshot() []Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Stream
	for method, began := range l.live {
		all = append(all, Stream{Method: method, Age: time.Since(began)})
	}
	// TODO: the oldest first.
	slices.SortFunc(all, func(a, b Stream) int { return cmp.Compare(a.Method, b.Method) })
	return all
}

func (l *liveStreams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (l *liveStreams) HandleConn(context.Context, stats.ConnStats) {}
