package lab

import (
	"cmp"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipe is one direction of a virtual connection: bytes go in at one end and
// come out at the other a latency later. Like a socket buffer without a limit
// it never makes a writer wait; what makes gRPC wait is its own flow control.
type pipe struct {
	link *Link

	mu       sync.Mutex
	queue    []segment
	free     time.Time // when the last byte written so far has left the sender
	wake     chan struct{}
	deadline time.Time
	reset    error // both ends fail with it
	unread   bool  // the reader has closed its end: what still comes is dropped
	fin      bool  // the writer has closed its end
}

// segment is what one Write put on the way. A nil data is the FIN.
type segment struct {
	data    []byte
	arrives time.Time // zero while the link is a black hole
}

func newPipe(link *Link) *pipe {
	return &pipe{link: link, wake: make(chan struct{}, 1)}
}

// send puts data on the way, nil for the FIN.
func (p *pipe) send(data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.reset != nil:
		return p.reset
	case p.fin:
		return net.ErrClosed
	case p.unread:
		return nil // the writer cannot know yet
	}
	p.fin = data == nil
	arrives := time.Time{}
	if !p.link.black.Load() {
		arrives = p.arrival(len(data))
	}
	p.queue = append(p.queue, segment{data, arrives})
	p.poke()
	return nil
}

// arrival tells when n more bytes reach the other end: they leave one after
// another at the link's bandwidth, and each then takes the link's latency.
func (p *pipe) arrival(n int) time.Time {
	if now := time.Now(); p.free.Before(now) {
		p.free = now
	}
	if p.link.bandwidth > 0 {
		p.free = p.free.Add(time.Duration(n) * time.Second / time.Duration(p.link.bandwidth))
	}
	return p.free.Add(p.link.latency)
}

// read waits for the first segment to arrive and copies what fits.
func (p *pipe) read(b []byte) (int, error) {
	for {
		p.mu.Lock()
		if p.reset != nil || p.unread {
			defer p.mu.Unlock()
			return 0, cmp.Or(p.reset, net.ErrClosed)
		}
		now := time.Now()
		var next time.Time
		if len(p.queue) > 0 {
			next = p.queue[0].arrives
		}
		if !next.IsZero() && !now.Before(next) {
			defer p.mu.Unlock()
			first := &p.queue[0]
			if first.data == nil {
				return 0, io.EOF // the FIN stays: a second Read sees it too
			}
			p.link.lab.arrivals.Add(1)
			n := copy(b, first.data)
			if first.data = first.data[n:]; len(first.data) == 0 {
				p.queue = p.queue[1:]
			}
			return n, nil
		}
		if !p.deadline.IsZero() {
			if !now.Before(p.deadline) {
				p.mu.Unlock()
				return 0, os.ErrDeadlineExceeded
			}
			if next.IsZero() || p.deadline.Before(next) {
				next = p.deadline
			}
		}
		p.mu.Unlock()

		var timer *time.Timer
		var due <-chan time.Time
		if !next.IsZero() {
			timer = time.NewTimer(next.Sub(now))
			due = timer.C
		}
		select {
		case <-p.wake:
		case <-due:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// blackhole stops what is on the way; nothing of it is lost, because a real
// sender would send it again.
func (p *pipe) blackhole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.free = now
	for i := range p.queue {
		if p.queue[i].arrives.After(now) {
			p.queue[i].arrives = time.Time{}
		}
	}
	p.poke()
}

// heal puts what was held back on the way again, in order.
func (p *pipe) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.queue {
		if p.queue[i].arrives.IsZero() {
			p.queue[i].arrives = p.arrival(len(p.queue[i].data))
		}
	}
	p.poke()
}

// fail resets the direction: what was on the way is lost.
func (p *pipe) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset = err
	p.poke()
}

// stopReading drops what is there and what still comes.
func (p *pipe) stopReading() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unread, p.queue = true, nil
	p.poke()
}

func (p *pipe) setDeadline(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	p.poke()
}

func (p *pipe) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// virtualConn is one end of a virtual connection.
type virtualConn struct {
	in, out *pipe
}

func (c *virtualConn) Read(b []byte) (int, error) { return c.in.read(b) }

func (c *virtualConn) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := c.out.send(append([]byte(nil), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close sends a FIN behind what was written. The other end learns of it when
// the FIN arrives; what it writes until then is lost.
func (c *virtualConn) Close() error {
	c.in.stopReading()
	return c.out.send(nil)
}

// reset is a RST: both directions end at both ends.
func (c *virtualConn) reset() {
	err := &net.OpError{Op: "read", Net: "lab", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	c.in.fail(err)
	c.out.fail(err)
}

func (c *virtualConn) LocalAddr() net.Addr  { return address{} }
func (c *virtualConn) RemoteAddr() net.Addr { return address{} }

func (c *virtualConn) SetDeadline(t time.Time) error     { return c.SetReadDeadline(t) }
func (c *virtualConn) SetReadDeadline(t time.Time) error { c.in.setDeadline(t); return nil }

// SetWriteDeadline does nothing: a Write never waits.
func (c *virtualConn) SetWriteDeadline(time.Time) error { return nil }

type address struct{}

func (address) Network() string { return "lab" }
func (address) String() string  { return "lab" }
