// Right: dials on a goroutine of its own, and hears its context meanwhile.
package main

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
)

// errClosed is what Get returns when the pool is closed.
var errClosed = errors.New("the pool is closed")

// A pool gives out places for streams on connections.
type pool struct {
	dial           func() (*grpc.ClientConn, error)
	conns, perConn int

	mu      sync.Mutex
	open    []*member
	dialing int
	changed chan struct{}
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

// Get waits for a place.
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
			return p.add(ctx)
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
			return nil, nil, err
		}
	}
}

// add dials a connection, on a goroutine of its own: whoever wants it does not
// wait longer than its context. If it has gone, others get the places.
func (p *pool) add(ctx context.Context) (conn *grpc.ClientConn, release func(), err error) {
	p.dialing++
	done := make(chan error, 1)
	var mine *member
	gone := false
	go func() {
		conn, err := p.dial()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dialing--
		switch {
		case err != nil:
		case p.closed:
			conn.Close()
			err = errClosed
		default:
			mine = &member{conn: conn}
			if !gone {
				mine.taken = 1
			}
			p.open = append(p.open, mine)
		}
		p.wake()
		done <- err
	}()
	p.mu.Unlock()
	select {
	case err = <-done:
		p.mu.Lock()
	case <-ctx.Done():
		p.mu.Lock()
		gone = true
		if mine == nil {
			return nil, nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return mine.conn, p.giver(mine), nil
}

// take takes a place and returns what gives it back. The caller holds mu.
func (p *pool) take(m *member) (release func()) {
	m.taken++
	return p.giver(m)
}

// giver gives a place back.
func (p *pool) giver(m *member) (release func()) {
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		m.taken--
		p.wake()
	})
}

// wake wakes who waits. The caller holds mu.
func (p *pool) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Close ends the pool.
func (p *pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, m := range p.open {
		m.conn.Close()
	}
	p.wake()
}
