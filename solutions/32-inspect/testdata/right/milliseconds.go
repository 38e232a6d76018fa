// Right: a slice that it searches, and times in milliseconds.
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
	Method string
	Age    time.Duration
}

type open struct {
	method string
	since  int64 // Unix milliseconds
}

type liveStreams struct {
	sync.RWMutex
	all []*open
}

type tagKey struct{}

func newLiveStreams() *liveStreams { return new(liveStreams) }

func (l *liveStreams) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, tagKey{}, &open{info.FullMethodName, time.Now().UnixMilli()})
}

func (l *liveStreams) HandleRPC(ctx context.Context, event stats.RPCStats) {
	o := ctx.Value(tagKey{}).(*open)
	switch e := event.(type) {
	case *stats.Begin:
		if e.IsClientStream || e.IsServerStream {
			l.Lock()
			l.all = append(l.all, o)
			l.Unlock()
		}
	case *stats.End:
		l.Lock()
		if i := slices.Index(l.all, o); i >= 0 {
			l.all = slices.Delete(l.all, i, i+1)
		}
		l.Unlock()
	}
}

func (l *liveStreams) Snapshot() []Stream {
	l.RLock()
	defer l.RUnlock()
	var all []Stream
	for _, o := range l.all {
		all = append(all, Stream{o.method, time.Duration(time.Now().UnixMilli()-o.since) * time.Millisecond})
	}
	slices.SortStableFunc(all, func(a, b Stream) int { return int(b.Age - a.Age) })
	return all
}

func (l *liveStreams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (l *liveStreams) HandleConn(context.Context, stats.ConnStats) {}
