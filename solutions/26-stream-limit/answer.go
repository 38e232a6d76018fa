package main

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
)

// errClosed is what Get returns when the pool is closed.
var errClosed = errors.New("the pool is closed")

// A pool gives out places for streams on connections that it dials when it
// needs them: at most conns connections, at most perConn places on each.
type pool struct {
	dial           func() (*grpc.ClientConn, error)
	conns, perConn int

	mu      sync.Mutex // guards what follows, and is never held over dial
	open    []*member
	dialing int           // calls of dial that have not returned: each may become a connection
	changed chan struct{} // closed, and made anew, when a Get that waits should look again
	closed  bool
}

// A member is a connection and how many of its places are taken.
type member struct {
	conn  *grpc.ClientConn
	taken int
}

func newPool(dial func() (*grpc.ClientConn, error), conns, perConn int) *pool {
	return &pool{dial: dial, conns: conns, perConn: perConn, changed: make(chan struct{})}
}

// Get waits for a place, until ctx ends or the pool is closed. Whoever is done
// with the place calls release.
func (p *pool) Get(ctx context.Context) (conn *grpc.ClientConn, release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.closed {
			return nil, nil, errClosed
		}
		for _, m := range p.open {
			if m.taken < p.perConn {
				return m.conn, p.take(m), nil
			}
		}
		if len(p.open)+p.dialing < p.conns {
			return p.add()
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		p.mu.Lock()
		if err != nil {
			return nil, nil, err // it has taken nothing that it would have to give back
		}
	}
}

// add dials a connection and takes its first place. The caller holds mu.
func (p *pool) add() (*grpc.ClientConn, func(), error) {
	p.dialing++
	p.mu.Unlock()
	conn, err := p.dial()
	p.mu.Lock()
	p.dialing--
	defer p.wake() // for the other places, or, after an error, for another try
	if err != nil {
		return nil, nil, err
	}
	if p.closed { // meanwhile, and Close does not know this connection
		conn.Close()
		return nil, nil, errClosed
	}
	m := &member{conn: conn}
	p.open = append(p.open, m)
	return conn, p.take(m), nil
}

// take takes a place and returns what gives it back. The caller holds mu.
func (p *pool) take(m *member) (release func()) {
	m.taken++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		m.taken--
		p.wake()
	})
}

// wake wakes every Get that waits. Each looks for itself, so no wake-up is lost
// on one that has given up. The caller holds mu.
func (p *pool) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Close closes the connections, and ends every Get that waits or comes later.
func (p *pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, m := range p.open {
		m.conn.Close()
	}
	p.wake()
}
