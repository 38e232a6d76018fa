// Wrong: who has given up hands the right to dial back, and not on to the next.
//
// Fails: TestWhoeverGivesUpLeavesADialToOthers
// Says: of 3 calls of Get number 1 was in dial, which failed at the instant at which number 2 gave up, and 1s later number 3 has not returned
package main

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
)

// errClosed is what Get returns when the pool is closed.
var errClosed = errors.New("the pool is closed")

type member struct {
	conn  *grpc.ClientConn
	taken int
}

// grant is what a waiter is given: a place, leave to dial, or closed.
type grant struct {
	m    *member
	dial bool
}

type pool struct {
	dial           func() (*grpc.ClientConn, error)
	conns, perConn int

	mu      sync.Mutex
	members []*member
	dialing int
	closed  bool
	queue   []chan grant
}

func newPool(dial func() (*grpc.ClientConn, error), conns, perConn int) *pool {
	return &pool{dial: dial, conns: conns, perConn: perConn}
}

// next says what there is to grant. p.mu is held.
func (p *pool) next() (g grant, ok bool) {
	for _, m := range p.members {
		if m.taken < p.perConn {
			m.taken++
			return grant{m: m}, true
		}
	}
	if len(p.members)+p.dialing < p.conns {
		p.dialing++
		return grant{dial: true}, true
	}
	return grant{}, false
}

// serve grants what there is to those who wait, first come first served.
func (p *pool) serve() {
	for len(p.queue) > 0 {
		g, ok := p.next()
		if !ok {
			return
		}
		p.queue[0] <- g
		p.queue = p.queue[1:]
	}
}

func (p *pool) undo(g grant) {
	if g.m != nil {
		g.m.taken--
	} else if g.dial {
		p.dialing--
		return
	}
	p.serve()
}

func (p *pool) Get(ctx context.Context) (*grpc.ClientConn, func(), error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, nil, errClosed
	}
	if len(p.queue) == 0 {
		if g, ok := p.next(); ok {
			p.mu.Unlock()
			return p.use(g)
		}
	}
	ch := make(chan grant, 1)
	p.queue = append(p.queue, ch)
	p.mu.Unlock()
	select {
	case g, ok := <-ch:
		if !ok {
			return nil, nil, errClosed
		}
		return p.use(g)
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		for i := range p.queue {
			if p.queue[i] == ch {
				p.queue = append(p.queue[:i], p.queue[i+1:]...)
				return nil, nil, ctx.Err()
			}
		}
		select {
		case g, ok := <-ch:
			if ok {
				p.undo(g)
			}
		default:
		}
		return nil, nil, ctx.Err()
	}
}

func (p *pool) use(g grant) (*grpc.ClientConn, func(), error) {
	if g.dial {
		conn, err := p.dial()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dialing--
		if p.closed {
			if err == nil {
				conn.Close()
			}
			return nil, nil, errClosed
		}
		if err != nil {
			p.serve()
			return nil, nil, err
		}
		g.m = &member{conn: conn, taken: 1}
		p.members = append(p.members, g.m)
		p.serve()
	}
	return g.m.conn, sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		g.m.taken--
		p.serve()
	}), nil
}

func (p *pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, m := range p.members {
		m.conn.Close()
	}
	for _, ch := range p.queue {
		close(ch)
	}
	p.queue = nil
}
