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

	mu   sync.Mutex
	conn *grpc.ClientConn
	// TODO: know the connections, and of each how many places are taken.
}

func newPool(dial func() (*grpc.ClientConn, error), conns, perConn int) *pool {
	return &pool{dial: dial, conns: conns, perConn: perConn}
}

// Get waits for a place, until ctx ends or the pool is closed. Whoever is done
// with the place calls release.
func (p *pool) Get(ctx context.Context) (conn *grpc.ClientConn, release func(), err error) {
	// TODO: everybody gets the same connection, however many streams are open
	// there. Give out places: free ones first, then on a new connection. When
	// there are none, wait.
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		if p.conn, err = p.dial(); err != nil {
			return nil, nil, err
		}
	}
	return p.conn, func() {
		// TODO: give the place back, once, to somebody who waits if there is one.
	}, nil
}

// Close closes the connections, and ends every Get that waits or comes later.
func (p *pool) Close() {
	// TODO: a Get may wait, or be in dial. Another may come later.
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.Close()
	}
}
