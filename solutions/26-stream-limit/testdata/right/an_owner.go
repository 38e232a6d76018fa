// Right: one goroutine owns everything, and answers requests.
package main

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
)

// errClosed is what Get returns when the pool is closed.
var errClosed = errors.New("the pool is closed")

type answer struct {
	conn *grpc.ClientConn // nil: dial one, if err is nil
	err  error
}

// A request is answered once, unless gone is closed.
type request struct {
	to   chan answer
	gone <-chan struct{}
}

type pool struct {
	dial     func() (*grpc.ClientConn, error)
	requests chan request
	places   chan *grpc.ClientConn // given back
	dialled  chan answer           // by those who were told to
	closing  chan struct{}
	done     chan struct{} // the owner has returned
}

func newPool(dial func() (*grpc.ClientConn, error), conns, perConn int) *pool {
	p := &pool{dial: dial, requests: make(chan request), places: make(chan *grpc.ClientConn),
		dialled: make(chan answer), closing: make(chan struct{}), done: make(chan struct{})}
	go p.own(conns, perConn)
	return p
}

func (p *pool) own(conns, perConn int) {
	defer close(p.done)
	var open, free []*grpc.ClientConn
	var waiting []request
	dialing := 0
	for {
		for len(waiting) > 0 && (len(free) > 0 || len(open)+dialing < conns) {
			r := waiting[0]
			waiting = waiting[1:]
			var next answer
			if len(free) > 0 {
				next.conn = free[0]
			}
			select {
			case r.to <- next:
				if next.conn != nil {
					free = free[1:]
				} else {
					dialing++
				}
			case <-r.gone:
			}
		}
		select {
		case r := <-p.requests:
			waiting = append(waiting, r)
		case conn := <-p.places:
			free = append(free, conn)
		case a := <-p.dialled:
			if dialing--; a.err == nil {
				open = append(open, a.conn)
				for range perConn - 1 {
					free = append(free, a.conn)
				}
			}
		case <-p.closing:
			for _, conn := range open {
				conn.Close()
			}
			return
		}
	}
}

func (p *pool) Get(ctx context.Context) (*grpc.ClientConn, func(), error) {
	r := request{make(chan answer), ctx.Done()}
	select {
	case p.requests <- r:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-p.done:
		return nil, nil, errClosed
	}
	var a answer
	select {
	case a = <-r.to:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-p.done:
		return nil, nil, errClosed
	}
	if a.conn == nil {
		a.conn, a.err = p.dial()
		select {
		case p.dialled <- a:
		case <-p.done:
			if a.err == nil {
				a.conn.Close()
			}
			a.err = errClosed
		}
		if a.err != nil {
			return nil, nil, a.err
		}
	}
	return a.conn, sync.OnceFunc(func() {
		select {
		case p.places <- a.conn:
		case <-p.done:
		}
	}), nil
}

func (p *pool) Close() {
	close(p.closing)
	<-p.done
}
