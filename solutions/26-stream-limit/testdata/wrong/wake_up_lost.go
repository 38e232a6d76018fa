// Wrong: wakes one, who wakes the next, but not when it has given up.
//
// Fails: TestWhoeverGivesUpTakesNoPlaceAlong
// Says: 0 calls have a place, want 1
package main

import (
	"context"
	"errors"
	"sync"
	"time"

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
	return &pool{dial: dial, conns: conns, perConn: perConn, changed: make(chan struct{}, 1)}
}

// Get waits for a place.
func (p *pool) Get(ctx context.Context) (conn *grpc.ClientConn, release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.closed {
			p.wake()
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
			time.Sleep(time.Nanosecond) // its context may end meanwhile
			err = ctx.Err()
		case <-ctx.Done():
			err = ctx.Err()
		}
		p.mu.Lock()
		if err != nil {
			return nil, nil, err
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
	defer p.wake()
	if err != nil {
		return nil, nil, err
	}
	if p.closed {
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
	p.wake()
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		m.taken--
		p.wake()
	})
}

// wake wakes who waits. The caller holds mu.
func (p *pool) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
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
