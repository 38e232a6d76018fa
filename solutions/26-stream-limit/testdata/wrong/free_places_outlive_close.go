// Wrong: gives out the places that were free when the pool was closed.
//
// Fails: TestCloseEndsAll
// Says: places were given back after it, and Get returned no error and connection
package main

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
)

// errClosed is what Get returns when the pool is closed.
var errClosed = errors.New("the pool is closed")

type pool struct {
	dial    func() (*grpc.ClientConn, error)
	perConn int
	places  chan *grpc.ClientConn // free ones
	room    chan struct{}         // one for each connection that may be dialled
	done    chan struct{}

	mu     sync.Mutex
	open   []*grpc.ClientConn
	closed bool
}

func newPool(dial func() (*grpc.ClientConn, error), conns, perConn int) *pool {
	p := &pool{dial: dial, perConn: perConn, places: make(chan *grpc.ClientConn, conns*perConn),
		room: make(chan struct{}, conns), done: make(chan struct{})}
	for range conns {
		p.room <- struct{}{}
	}
	return p
}

func (p *pool) Get(ctx context.Context) (conn *grpc.ClientConn, release func(), err error) {
	select { // a free place first
	case conn = <-p.places:
	default:
		select {
		case conn = <-p.places:
		case <-p.room:
			if conn, err = p.add(); err != nil {
				return nil, nil, err
			}
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-p.done:
			return nil, nil, errClosed
		}
	}
	return conn, sync.OnceFunc(func() { p.places <- conn }), nil
}

func (p *pool) add() (*grpc.ClientConn, error) {
	conn, err := p.dial()
	if err != nil {
		p.room <- struct{}{}
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		conn.Close()
		return nil, errClosed
	}
	p.open = append(p.open, conn)
	for range p.perConn - 1 {
		p.places <- conn
	}
	return conn, nil
}

func (p *pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	close(p.done)
	for _, conn := range p.open {
		conn.Close()
	}
}
