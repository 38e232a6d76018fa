// Right: a sync.Map, and no lock of its own.
package main

import (
	"context"
	"sort"
	"sync"
	"time"

	"google.golang.org/grpc/stats"
)

// A Stream is an RPC that is open and not unary.
type Stream struct {
	Method string
	Age    time.Duration
}

type liveStreams struct{ live sync.Map } // of *rpc

type rpc struct {
	method string
	began  time.Time
}

func newLiveStreams() *liveStreams { return &liveStreams{} }

func (l *liveStreams) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, l, &rpc{method: info.FullMethodName, began: time.Now()})
}

func (l *liveStreams) HandleRPC(ctx context.Context, event stats.RPCStats) {
	r := ctx.Value(l)
	if begin, ok := event.(*stats.Begin); ok && (begin.IsClientStream || begin.IsServerStream) {
		l.live.Store(r, nil)
	} else if _, ok := event.(*stats.End); ok {
		l.live.Delete(r)
	}
}

func (l *liveStreams) Snapshot() (all []Stream) {
	now := time.Now()
	l.live.Range(func(r, _ any) bool {
		all = append(all, Stream{r.(*rpc).method, now.Sub(r.(*rpc).began)})
		return true
	})
	sort.Slice(all, func(i, j int) bool { return all[i].Age > all[j].Age })
	return all
}

func (l *liveStreams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (l *liveStreams) HandleConn(context.Context, stats.ConnStats) {}
