// Right: a map for each connection, which it forgets when it is empty.
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

type (
	connKey struct{}
	rpcKey  struct{ *liveStreams }
	rpc     struct {
		conn   any
		method string
		began  time.Time
	}
)

type liveStreams struct {
	mu    sync.Mutex
	conns map[any]map[*rpc]struct{} // nil is the clients'
}

func newLiveStreams() *liveStreams {
	return &liveStreams{conns: map[any]map[*rpc]struct{}{}}
}

func (l *liveStreams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, connKey{}, new(int))
}

func (l *liveStreams) HandleConn(context.Context, stats.ConnStats) {}

func (l *liveStreams) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, rpcKey{l}, &rpc{conn: ctx.Value(connKey{}), method: info.FullMethodName})
}

func (l *liveStreams) HandleRPC(ctx context.Context, event stats.RPCStats) {
	shared, _ := ctx.Value(rpcKey{l}).(*rpc)
	switch e := event.(type) {
	case *stats.Begin:
		if !e.IsClientStream && !e.IsServerStream {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.conns[shared.conn] == nil {
			l.conns[shared.conn] = map[*rpc]struct{}{}
		}
		shared.began = e.BeginTime
		l.conns[shared.conn][shared] = struct{}{}
	case *stats.End:
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns[shared.conn], shared)
		if len(l.conns[shared.conn]) == 0 {
			delete(l.conns, shared.conn)
		}
	}
}

func (l *liveStreams) Snapshot() (all []Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		for r := range conn {
			all = append(all, Stream{r.method, time.Since(r.began)})
		}
	}
	slices.SortFunc(all, func(a, b Stream) int { return int(b.Age - a.Age) })
	return all
}
