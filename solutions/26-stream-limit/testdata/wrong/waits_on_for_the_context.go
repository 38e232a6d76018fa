// Wrong: a goroutine for each Get waits until its context ends, long after Get has returned.
//
// Fails: TestAnErrorOfDialTakesNoPlaceAlong
// Says: a goroutine that was started at answer.go:
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

// A pool gives out places for streams on connections that it dials when it
// needs them: at most conns connections, at most perConn places on each.
type pool struct {
	dial           func() (*grpc.ClientConn, error)
	conns, perConn int

	mu      sync.Mutex
	members []*member
	dialing int
	closed  bool
	cond    *sync.Cond
}

func newPool(dial func() (*grpc.ClientConn, error), conns, perConn int) *pool {
	p := &pool{dial: dial, conns: conns, perConn: perConn}
	p.cond = sync.NewCond(&p.mu)
	return p
}

// wake wakes all who wait. p.mu is held.
func (p *pool) wake() {
	p.cond.Broadcast()
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
	go func() {
		<-ctx.Done()
		p.mu.Lock()
		p.cond.Broadcast()
		p.mu.Unlock()
	}()
	p.mu.Lock()
	for {
		if err := ctx.Err(); err != nil {
			p.mu.Unlock()
			return nil, nil, err
		}
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
		p.cond.Wait()
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
		m.conn.Close()
	}
	p.wake()
}
