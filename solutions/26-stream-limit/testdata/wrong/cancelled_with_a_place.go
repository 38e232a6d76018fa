// Wrong: hands places over, and who has given up keeps what was handed to them.
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

type pool struct {
	dial           func() (*grpc.ClientConn, error)
	conns, perConn int

	mu      sync.Mutex
	open    []*grpc.ClientConn
	free    []*grpc.ClientConn // places
	dialing int
	queue   []chan *grpc.ClientConn // of those who wait; nil says look again
	closed  bool
}

func newPool(dial func() (*grpc.ClientConn, error), conns, perConn int) *pool {
	return &pool{dial: dial, conns: conns, perConn: perConn}
}

func (p *pool) Get(ctx context.Context) (*grpc.ClientConn, func(), error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, nil, errClosed
		}
		if n := len(p.free); n > 0 {
			conn := p.free[n-1]
			p.free = p.free[:n-1]
			p.mu.Unlock()
			return p.place(conn)
		}
		if len(p.open)+p.dialing < p.conns {
			p.dialing++
			p.mu.Unlock()
			return p.add()
		}
		turn := make(chan *grpc.ClientConn, 1)
		p.queue = append(p.queue, turn)
		p.mu.Unlock()
		select {
		case conn := <-turn:
			if conn != nil {
				return p.place(conn)
			}
		case <-ctx.Done():
			time.Sleep(time.Nanosecond) // it gets its place meanwhile
			p.leave(turn)
			return nil, nil, ctx.Err()
		}
	}
}

// leave takes a call out of the queue. If it has its place already, the next
// one gets that.
func (p *pool) leave(turn chan *grpc.ClientConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.queue {
		if other == turn {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			return
		}
	}
}

func (p *pool) place(conn *grpc.ClientConn) (*grpc.ClientConn, func(), error) {
	return conn, sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.give(conn)
	}), nil
}

// give hands a place to the first who waits. The caller holds mu.
func (p *pool) give(conn *grpc.ClientConn) {
	if p.closed {
		return
	}
	if len(p.queue) == 0 {
		p.free = append(p.free, conn)
		return
	}
	p.queue[0] <- conn
	p.queue = p.queue[1:]
}

func (p *pool) add() (*grpc.ClientConn, func(), error) {
	conn, err := p.dial()
	p.mu.Lock()
	p.dialing--
	if err == nil && p.closed {
		conn.Close()
		err = errClosed
	}
	if err != nil {
		if len(p.queue) > 0 {
			p.queue[0] <- nil
			p.queue = p.queue[1:]
		}
		p.mu.Unlock()
		return nil, nil, err
	}
	p.open = append(p.open, conn)
	for range p.perConn - 1 {
		p.give(conn)
	}
	p.mu.Unlock()
	return p.place(conn)
}

func (p *pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, turn := range p.queue {
		turn <- nil
	}
	p.queue, p.free = nil, nil
	for _, conn := range p.open {
		conn.Close()
	}
}
