package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// What README.md allows.
const toReturn = time.Second // after what ends the stream

// numbered makes n events with bodies of size bytes.
func numbered(n, size int) []*feedv1.Event {
	var events []*feedv1.Event
	for i := range n {
		events = append(events, &feedv1.Event{Id: fmt.Sprint(i + 1), Topic: "alerts", Body: strings.Repeat("x", size)})
	}
	return events
}

// A peer is a server with a script, which remembers what it received, stored
// and acknowledged, over all streams.
type peer struct {
	feedv1.UnimplementedFeedServiceServer
	what   string        // "a server that acknowledges each event"
	takes  time.Duration // what an insert takes
	away   time.Duration // how long an ack takes to the client; lab.Latency if not set
	script func(*peer, ingestServer) error

	mu       sync.Mutex
	received []string // the events' text
	closed   bool     // the client has half-closed
	stored   map[string]bool
	sent     []ack
	ended    time.Time // when the handler returned, zero before
	cut      time.Time // when the network was cut, zero before
}

// An ack left the server at a time.
type ack struct {
	id string
	at time.Time
}

func (p *peer) Ingest(stream ingestServer) error {
	err := p.script(p, stream)
	p.note(func() { p.ended = time.Now() })
	return err
}

func (p *peer) note(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *peer) recv(stream ingestServer) (*feedv1.Event, error) {
	ev, err := stream.Recv()
	p.note(func() {
		switch {
		case errors.Is(err, io.EOF):
			p.closed = true
		case err == nil:
			p.received = append(p.received, lab.Text(ev))
		}
	})
	return ev, err
}

// keep stores an event, once for each id, and acknowledges it.
func (p *peer) keep(stream ingestServer, ev *feedv1.Event) error {
	if err := wait(stream.Context(), p.takes); err != nil {
		return err
	}
	p.note(func() {
		if p.stored == nil {
			p.stored = map[string]bool{}
		}
		p.stored[ev.GetId()] = true
	})
	err := stream.Send(&feedv1.Ack{Id: ev.GetId()})
	if err == nil {
		p.note(func() { p.sent = append(p.sent, ack{ev.GetId(), time.Now()}) })
	}
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// untilGone keeps the stream open until the client leaves.
func untilGone(_ *peer, stream ingestServer) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// keepEach is a script that stores and acknowledges n events at a time, and at
// the half-close the rest.
func keepEach(n int) func(*peer, ingestServer) error {
	return func(p *peer, stream ingestServer) error {
		var held []*feedv1.Event
		for {
			ev, err := p.recv(stream)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if err == nil {
				held = append(held, ev)
			}
			if err != nil || len(held) == n {
				for _, ev := range held {
					if err := p.keep(stream, ev); err != nil {
						return err
					}
				}
				held = nil
			}
			if err != nil {
				return nil
			}
		}
	}
}

// keepSome is a script that acknowledges n events and then does something else.
func keepSome(n int, then func(*peer, ingestServer) error) func(*peer, ingestServer) error {
	return func(p *peer, stream ingestServer) error {
		for range n {
			ev, err := p.recv(stream)
			if err != nil {
				return err
			}
			if err := p.keep(stream, ev); err != nil {
				return err
			}
		}
		return then(p, stream)
	}
}

// view is what the server saw so far.
func (p *peer) view() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	closed := "no half-close"
	if p.closed {
		closed = "the half-close"
	}
	return fmt.Sprintf("the server has received %d events and %s, and has sent %d acks", len(p.received), closed, len(p.sent))
}

// storedIDs is how many different ids are stored.
func (p *peer) storedIDs() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.stored)
}

// A call is one call of ingest, and what came of it.
type call struct {
	l        *lab.Lab
	p        *peer
	what     string
	events   []string // their text, before the call
	began    time.Time
	returned time.Time
	acked    []string
	err      error
}

// begin calls ingest, and checks what holds whatever happens: one stream, and
// the ids of the acks that have arrived.
func begin(ctx context.Context, l *lab.Lab, p *peer, client feedv1.FeedServiceClient, events []*feedv1.Event, limit time.Duration) *call {
	l.Helper()
	c := &call{l: l, p: p, what: fmt.Sprintf("ingest of %d events with %s", len(events), p.what), began: time.Now()}
	for _, ev := range events {
		c.events = append(c.events, lab.Text(ev))
	}
	defer func() {
		if c.returned.IsZero() {
			l.Errorf("meanwhile %s", p.view())
		}
	}()
	before := len(l.RPCs())
	l.Call(c.what, limit, func() { c.acked, c.err = ingest(ctx, client, events) })
	c.returned = time.Now()
	if n := len(l.RPCs()) - before; n > 1 {
		l.Fatalf("%s opened %d streams, want one: what has no ack, the caller sends again", c.what, n)
	}
	c.wantArrived()
	return c
}

// wantArrived checks that the ids are those of the acks that had reached the
// client when ingest returned.
func (c *call) wantArrived() {
	c.l.Helper()
	var arrived []string
	c.p.note(func() {
		for _, ack := range c.p.sent {
			at := ack.at.Add(cmp.Or(c.p.away, lab.Latency))
			lost := ack.at.Before(c.p.cut) && at.After(c.p.cut)
			if !lost && at.After(c.began) && !at.After(c.returned) {
				arrived = append(arrived, ack.id)
			}
		}
	})
	if !slices.Equal(c.acked, arrived) {
		c.l.Fatalf("%s returned %d ids and the error %v after %v, and %d acks had arrived by then: %s",
			c.what, len(c.acked), c.err, c.returned.Sub(c.began), len(arrived), difference(c.acked, arrived))
	}
}

// difference tells where two lists part.
func difference(got, want []string) string {
	same := 0
	for same < min(len(got), len(want)) && got[same] == want[same] {
		same++
	}
	switch {
	case same == len(want):
		return fmt.Sprintf("%d are too many, from %s on", len(got)-same, got[same])
	case same == len(got):
		return fmt.Sprintf("%d are missing, from %s on", len(want)-same, want[same])
	default:
		return fmt.Sprintf("the first %d are right, and then comes %s, want %s", same, got[same], want[same])
	}
}

// wantSoon checks that ingest did not stay on after the end of the stream.
func (c *call) wantSoon(end time.Time) {
	c.l.Helper()
	if late := c.returned.Sub(end); late > toReturn {
		c.l.Fatalf("%s returned %v after the end of the stream, want at most %v", c.what, late, toReturn)
	}
}

// wantSoonAfterTheServer is wantSoon where the handler's return is the end.
func (c *call) wantSoonAfterTheServer() {
	c.l.Helper()
	var ended time.Time
	c.p.note(func() { ended = c.p.ended })
	if !ended.IsZero() {
		c.wantSoon(ended.Add(cmp.Or(c.p.away, lab.Latency)))
	}
}

// wantAll checks that ingest returned the id of every event and no error.
func (c *call) wantAll() {
	c.l.Helper()
	var received []string
	c.p.note(func() { received = c.p.received })
	switch {
	case len(c.acked) < len(c.events):
		c.l.Fatalf("%s returned %d ids and the error %v after %v, and neither the server nor the caller had ended the stream",
			c.what, len(c.acked), c.err, c.returned.Sub(c.began))
	case c.err != nil:
		c.l.Fatalf("%s returned the error %q, want none: all acks had arrived, and the server did not fail", c.what, c.err)
	case !slices.Equal(received, c.events):
		c.l.Fatalf("%s sent %d events: %s", c.what, len(received), difference(received, c.events))
	}
	c.wantSoonAfterTheServer()
}

// wantError checks that ingest returned an error with the code. A context's
// own error is as good as the status that gRPC makes of it.
func (c *call) wantError(why string, want codes.Code) {
	c.l.Helper()
	got := status.Code(c.err)
	switch {
	case errors.Is(c.err, context.Canceled):
		got = codes.Canceled
	case errors.Is(c.err, context.DeadlineExceeded):
		got = codes.DeadlineExceeded
	}
	switch {
	case c.err == nil:
		c.l.Fatalf("%s: %s, and ingest returned %d ids and no error, want code %v", strings.TrimSuffix(c.what, ","), why, len(c.acked), want)
	case got != want:
		c.l.Fatalf("%s: %s, and ingest returned code %v (%v), want %v", strings.TrimSuffix(c.what, ","), why, got, c.err, want)
	}
}

// wantAllAcked checks a call that nothing disturbs.
func wantAllAcked(t *testing.T, p *peer, events []*feedv1.Event, limit time.Duration) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(p)
		begin(l.Context(), l, p, client, events, limit).wantAll()
	}, lab.Lasts(limit+time.Minute))
}

func TestIngestReturnsAnIdForEachAck(t *testing.T) {
	p := &peer{what: "a server that stores an event in 1ms", takes: time.Millisecond, script: keepEach(1)}
	wantAllAcked(t, p, numbered(20, 10), time.Minute)
}

func TestIngestGetsTheAcksThatComeInBatches(t *testing.T) {
	for _, batch := range []int{7, 100} {
		if !t.Failed() {
			p := &peer{what: fmt.Sprintf("a server that stores batches of %d, and the rest at the half-close,", batch), takes: time.Millisecond, script: keepEach(batch)}
			wantAllAcked(t, p, numbered(250, 10), time.Minute)
		}
	}
}

func TestIngestNeedsNoEvent(t *testing.T) {
	wantAllAcked(t, &peer{what: "a server that waits for the half-close", script: keepEach(1)}, nil, time.Minute)
}

const twoDays = 48 * time.Hour

func TestIngestWaitsForASlowServer(t *testing.T) {
	p := &peer{what: "a server that stores an event in two days", takes: twoDays, script: keepEach(1)}
	wantAllAcked(t, p, numbered(3, 10), 4*twoDays)
}

func TestIngestWaitsForAServerThatReadsLate(t *testing.T) {
	p := &peer{what: "a server that begins to read after two days", script: func(p *peer, stream ingestServer) error {
		if err := wait(stream.Context(), twoDays); err != nil {
			return err
		}
		return keepEach(1)(p, stream)
	}}
	wantAllAcked(t, p, numbered(300, 1000), 2*twoDays)
}

func TestAThousandEventsTakeTwoSeconds(t *testing.T) {
	const rtt, most = 100 * time.Millisecond, 2 * time.Second
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: "a server that acknowledges each event", takes: 137 * time.Microsecond, away: rtt / 2, script: keepEach(1)}
		client, _ := l.Connect(p, lab.WithLatency(rtt/2))
		c := begin(l.Context(), l, p, client, numbered(1000, 10), 5*time.Minute)
		c.wantAll()
		if took := c.returned.Sub(c.began); took > most {
			l.Errorf("%s took %v at a round trip of %v, want at most %v: an event need not wait for the ack of another", c.what, took, rtt, most)
		}
	})
}

// TestIngestReturnsTheAcksThatArrivedBeforeTheCut cuts at many points, and then does
// what the caller does: it sends the others again.
func TestIngestReturnsTheAcksThatArrivedBeforeTheCut(t *testing.T) {
	// Twice a millisecond, and never when something arrives.
	for after := 50 * time.Microsecond; after < 34*time.Millisecond && !t.Failed(); after += 500 * time.Microsecond {
		lab.Run(t, func(l *lab.Lab) {
			p := &peer{takes: time.Millisecond, script: keepEach(1)}
			p.what = fmt.Sprintf("a server that stores an event in 1ms, and a cut after %v,", after)
			client, link := l.Connect(p)
			time.AfterFunc(after, func() {
				p.note(func() { p.cut = time.Now() })
				link.Cut()
			})
			events := numbered(20, 10)
			c := begin(l.Context(), l, p, client, events, time.Minute)
			if len(c.acked) < len(events) || c.err != nil {
				c.wantError("the network was cut", codes.Unavailable)
				c.wantSoon(c.began.Add(after))
			}

			time.Sleep(time.Second)
			link.Heal()
			time.Sleep(time.Minute) // the channel has connected again
			p.what = fmt.Sprintf("a server that is back after the cut after %v", after)
			p.note(func() { p.received, p.ended = nil, time.Time{} })
			begin(l.Context(), l, p, client, events[len(c.acked):], time.Minute).wantAll()
			if n := p.storedIDs(); n != len(events) {
				l.Errorf("%d events were sent, cut off after %v, and those without an ack sent again: the server has stored %d different ids", len(events), after, n)
			}
		})
	}
}

func TestABlackHoleAcknowledgesNothing(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: "a server that nothing reaches any more", script: keepEach(1)}
		client, link := l.Connect(p)
		link.Blackhole()
		ctx, cancel := context.WithTimeout(l.Context(), 10*time.Second)
		defer cancel()
		c := begin(ctx, l, p, client, numbered(20, 10), time.Minute)
		c.wantError("its deadline passed after 10s", codes.DeadlineExceeded)
		c.wantSoon(c.began.Add(10 * time.Second))
	})
}

func TestOKIsNoAck(t *testing.T) {
	for acks := range 4 {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			p := &peer{what: fmt.Sprintf("a server that sends %d acks, reads on, and ends with OK", acks)}
			p.script = keepSome(acks, func(p *peer, stream ingestServer) error {
				for range 10 {
					if _, err := p.recv(stream); err != nil {
						return err
					}
				}
				return wait(stream.Context(), time.Second)
			})
			client, _ := l.Connect(p)
			c := begin(l.Context(), l, p, client, numbered(20, 10), time.Minute)
			if c.err == nil {
				l.Fatalf("%s returned %d ids and no error: the caller takes all 20 for stored, and %d have no ack", c.what, len(c.acked), 20-len(c.acked))
			}
			c.wantSoonAfterTheServer()
		})
	}
}

// wantStatus checks a call that the server ends with an error after some acks.
// After the last one the answer may have left before the error comes.
func wantStatus(t *testing.T, what string, events []*feedv1.Event, acks int, pause time.Duration, want codes.Code) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: what, script: keepSome(acks, func(_ *peer, stream ingestServer) error {
			if err := wait(stream.Context(), pause); err != nil {
				return err
			}
			return status.Error(want, "EOF") // which is not io.EOF
		})}
		client, _ := l.Connect(p)
		c := begin(l.Context(), l, p, client, events, time.Minute)
		if acks < len(events) || c.err != nil {
			c.wantError(fmt.Sprintf("the server failed with %v", want), want)
		}
		c.wantSoonAfterTheServer()
	})
}

func TestTheStatusOfTheServerReachesTheCaller(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated && !t.Failed(); code++ {
		wantStatus(t, "a server that fails after 3 acks", numbered(20, 10), 3, time.Second, code)
		if !t.Failed() {
			wantStatus(t, "a server that fails after all acks", numbered(20, 10), 20, time.Second, code)
		}
	}
}

func TestTheStatusReachesTheCallerWhileSendWaits(t *testing.T) {
	wantStatus(t, "a server that stops reading after 3 acks, and fails a second later,", numbered(300, 1000), 3, time.Second, codes.ResourceExhausted)
}

func TestNoAckIsLostToAStatusBehindIt(t *testing.T) {
	wantStatus(t, "a server that sends 999 acks and fails at once", numbered(1000, 10), 999, 0, codes.ResourceExhausted)
}

// A lateClient comes late to the first Recv of a stream, as on a busy machine:
// what has arrived by then waits in the stream.
type lateClient struct {
	feedv1.FeedServiceClient
	late time.Duration
}

type lateStream struct {
	grpc.BidiStreamingClient[feedv1.Event, feedv1.Ack]
	wait func()
}

func (c lateClient) Ingest(ctx context.Context, opts ...grpc.CallOption) (grpc.BidiStreamingClient[feedv1.Event, feedv1.Ack], error) {
	stream, err := c.FeedServiceClient.Ingest(ctx, opts...)
	return lateStream{stream, sync.OnceFunc(func() { time.Sleep(c.late) })}, err
}

func (s lateStream) Recv() (*feedv1.Ack, error) {
	s.wait()
	return s.BidiStreamingClient.Recv()
}

// wantEnd checks that ingest ends with what ends its stream after two seconds:
// while it waits for acks, while acks wait for it, and while its Send is blocked.
func wantEnd(t *testing.T, why string, want codes.Code, end func(context.Context, *lab.Link, *grpc.Server) (context.Context, context.CancelFunc)) {
	t.Helper()
	for _, tt := range []struct {
		what   string
		events []*feedv1.Event
		late   time.Duration
		then   func(*peer, ingestServer) error
	}{
		{"a server that reads everything and sends 3 acks", numbered(20, 10), 0, func(p *peer, stream ingestServer) error {
			for {
				if _, err := p.recv(stream); err != nil {
					return untilGone(p, stream)
				}
			}
		}},
		{"a server that sends 3 acks, not yet read by Recv when the stream ends,", numbered(20, 10), 2100 * time.Millisecond, untilGone},
		{"a server that stops reading after 3 acks", numbered(300, 1000), 0, untilGone},
	} {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			p := &peer{what: tt.what, script: keepSome(3, tt.then)}
			link := l.NewLink()
			srv := link.Serve(p)
			client := lateClient{feedv1.NewFeedServiceClient(link.Dial()), tt.late}
			ctx, cancel := end(l.Context(), link, srv)
			defer cancel()
			c := begin(ctx, l, p, client, tt.events, time.Minute)
			c.wantError(why+" after 2s", want)
			c.wantSoon(c.began.Add(2*time.Second + lab.Latency))
		})
	}
}

func TestTheCancelOfTheCallerHolds(t *testing.T) {
	wantEnd(t, "the caller cancelled", codes.Canceled, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(2*time.Second, cancel)
		return ctx, cancel
	})
}

func TestTheDeadlineOfTheCallerHolds(t *testing.T) {
	wantEnd(t, "the deadline passed", codes.DeadlineExceeded, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, 2*time.Second)
	})
}

func TestIngestEndsWhenTheServerStops(t *testing.T) {
	wantEnd(t, "the server stopped", codes.Unavailable, func(ctx context.Context, _ *lab.Link, srv *grpc.Server) (context.Context, context.CancelFunc) {
		time.AfterFunc(2*time.Second, srv.Stop)
		return context.WithCancel(ctx)
	})
}

func TestIngestSaysThatThereIsNoServer(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: "a server that cannot be reached", script: untilGone}
		client, link := l.Connect(p)
		link.Cut()
		time.Sleep(time.Second) // the client has noticed
		c := begin(l.Context(), l, p, client, numbered(20, 10), time.Minute)
		c.wantError("the server cannot be reached", codes.Unavailable)
		c.wantSoon(c.began)
	})
}
