// Wrong: Close gives the streams a second to end, closes the connections
// behind the caller's back, and returns at once.
//
// Fails: TestCloseEndsAll
// Says: Close has returned, of 6 places 0 were free, and connection 1 of 3 is not closed
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

type member struct {
	conn  *grpc.ClientConn
	taken int
}

// A pool gives out places for streams on connections that it dials when it
// needs them: at most conns connections, at most perConn places on each.
type pool struct {
	dial           func() (*grpc.ClientConn, error)
	conns, perConn int

	mu      sync.Mutex
	members []*member
	dialing int
	closed  bool
	changed chan struct{}
}

func newPool(dial func() (*grpc.ClientConn, error), conns, perConn int) *pool {
	return &pool{dial: dial, conns: conns, perConn: perConn, changed: make(chan struct{})}
}

// wake wakes all who wait. p.mu is held.
func (p *pool) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// take takes a place on m. p.mu is held.
func (p *pool) take(m *member) (*grpc.ClientConn, func(), error) {
	m.taken++
	return m.conn, sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		m.taken--
		p.wake()
	}), nil
}

// Get waits for a place, until ctx ends or the pool is closed. Whoever is done
// with the place calls release.
func (p *pool) Get(ctx context.Context) (conn *grpc.ClientConn, release func(), err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, nil, errClosed
		}
		for _, m := range p.members {
			if m.taken < p.perConn {
				defer p.mu.Unlock()
				return p.take(m)
			}
		}
		if len(p.members)+p.dialing < p.conns {
			p.dialing++
			p.mu.Unlock()
			return p.grow()
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// grow dials and takes the first place of the new connection.
func (p *pool) grow() (*grpc.ClientConn, func(), error) {
	conn, err := p.dial()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialing--
	p.wake()
	if p.closed {
		if err == nil {
			conn.Close()
		}
		return nil, nil, errClosed
	}
	if err != nil {
		return nil, nil, err
	}
	m := &member{conn: conn}
	p.members = append(p.members, m)
	return p.take(m)
}

// Close closes the connections, and ends every Get that waits or comes later.
func (p *pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, m := range p.members {
		time.AfterFunc(time.Second, func() { m.conn.Close() })
	}
	p.wake()
}
