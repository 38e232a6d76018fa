// Right: a list in the order of beginning, whose elements the tags know.
package main

import (
	"container/list"
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/stats"
)

// A Stream is an RPC that is open and not unary.
type Stream struct {
	Method string
	Age    time.Duration
}

type liveStreams struct {
	mu   sync.Mutex
	live *list.List // of began
}

type began struct {
	method string
	at     time.Time
}

// A tag is one liveStreams' own: another may have one for the same RPC.
type tag struct {
	method  string
	element *list.Element
}

func newLiveStreams() *liveStreams { return &liveStreams{live: list.New()} }

func (l *liveStreams) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, l, &tag{method: info.FullMethodName})
}

func (l *liveStreams) HandleRPC(ctx context.Context, event stats.RPCStats) {
	t, ok := ctx.Value(l).(*tag)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch event := event.(type) {
	case *stats.Begin:
		if event.IsClientStream || event.IsServerStream {
			t.element = l.live.PushBack(began{t.method, event.BeginTime})
		}
	case *stats.End:
		if t.element != nil {
			l.live.Remove(t.element)
			t.element = nil
		}
	}
}

func (l *liveStreams) Snapshot() []Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Stream
	for e := l.live.Front(); e != nil; e = e.Next() {
		b := e.Value.(began)
		all = append(all, Stream{b.method, time.Since(b.at)})
	}
	return all
}

func (l *liveStreams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (l *liveStreams) HandleConn(context.Context, stats.ConnStats) {}
