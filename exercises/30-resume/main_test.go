package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const day = 24 * time.Hour

// A script is what the server does with one stream: events, and a second later
// an end.
type script struct {
	events []uint64
	end    func(b *bench, stream watchServer) error
}

func fails(code codes.Code) func(*bench, watchServer) error {
	return func(*bench, watchServer) error { return status.Error(code, "that is how it ends") }
}

func ends(*bench, watchServer) error { return nil }

func stays(_ *bench, stream watchServer) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// A bench is a server with a script for each stream, and a client with a disk.
type bench struct {
	*lab.Lab
	feedv1.UnimplementedFeedServiceServer
	link    *lab.Link
	srv     atomic.Pointer[grpc.Server]
	client  feedv1.FeedServiceClient
	scripts []script
	limit   time.Duration // for a call of resume
	once    sync.Once
	faulted chan bool // closed when a fault was found

	what string // what happens
	ctx  context.Context
	d    *disk

	mu      sync.Mutex
	streams []*opened
}

// opened is a stream that the server got.
type opened struct {
	after   uint64
	at, end time.Time
	code    codes.Code // how it ended
}

// on runs body with a server that has the scripts.
func on(t *testing.T, scripts []script, body func(*bench)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{Lab: l, link: l.NewLink(), scripts: scripts, limit: 30 * time.Minute, faulted: make(chan bool), ctx: l.Context()}
		b.serve()
		b.client = feedv1.NewFeedServiceClient(b.link.Dial(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second})))
		body(b)
	}, lab.Lasts(100*day))
}

func (b *bench) serve() {
	b.srv.Store(b.link.Serve(b, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second})))
}

func (b *bench) stop() { b.srv.Load().Stop() }

// fault says what was wrong, if it is the first thing, and ends the test.
func (b *bench) fault(format string, args ...any) {
	b.once.Do(func() {
		if !b.Failed() {
			b.Errorf("%s: %s", b.what, fmt.Sprintf(format, args...))
		}
		close(b.faulted)
	})
}

func (b *bench) Watch(req *feedv1.WatchRequest, stream watchServer) (err error) {
	s, ctx, d, after := &opened{after: req.GetAfterCursor(), at: time.Now()}, b.ctx, b.d, ""
	b.mu.Lock()
	n := len(b.streams)
	if b.streams = append(b.streams, s); n > 0 && !b.streams[n-1].end.IsZero() {
		after = fmt.Sprintf(" after stream %d had ended with %v", n, b.streams[n-1].code)
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		s.end, s.code = time.Now(), status.Code(err)
	}()
	if req.GetTopic() != "deploys" {
		b.fault("resume watched topic %q, want deploys", req.GetTopic())
	}
	if n >= len(b.scripts) {
		b.fault("resume opened stream %d%s, want no other", n+1, after)
		return nil
	}
	for _, cursor := range b.scripts[n].events {
		time.Sleep(10 * time.Millisecond)
		if err := stream.Send(&feedv1.Event{Topic: "deploys", Cursor: cursor}); err != nil {
			break
		}
	}
	select {
	case <-time.After(time.Second):
		return b.scripts[n].end(b, stream)
	case <-stream.Context().Done():
		d.mu.Lock()
		defer d.mu.Unlock()
		if ctx.Err() == nil && d.over == "" {
			b.fault("resume gave up stream %d, which had not ended; handled were %v", n+1, d.handled)
		}
		return stream.Context().Err()
	}
}

// A disk is a store and a handle, and knows what may be called.
type disk struct {
	b       *bench
	takes   time.Duration // handle
	during  func()        // is called in handle(1)
	fails   map[string]error
	resyncs []uint64 // what each Resync leaves saved
	hangs   bool     // Resync, until its context ends

	mu      sync.Mutex
	saved   uint64
	handled []uint64 // handle returned nil
	unsaved uint64   // was handled, and Save was not called
	running string   // the call under way
	over    string   // why nothing may be called any more
}

// call is a call of the disk. wrong says why it should not be, and done is what
// it changes.
func (d *disk) call(name string, wrong func() string, during, done func()) error {
	d.mu.Lock()
	if why := wrong(); d.over != "" {
		d.b.fault("%s was called although %s", name, d.over)
	} else if d.running != "" {
		d.b.fault("%s was called while %s ran, want one call at a time", name, d.running)
	} else if why != "" {
		d.b.fault("%s was called%s", name, why)
	}
	d.running = name
	err := d.fails[name]
	if err != nil {
		d.over = fmt.Sprintf("%s had returned the error %q", name, err)
	}
	d.mu.Unlock()
	during()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running = ""; err == nil {
		done()
	}
	return err
}

func fine() string { return "" }

func (d *disk) handle(ev *feedv1.Event) error {
	c := ev.GetCursor()
	return d.call(fmt.Sprintf("handle(%d)", c), func() string {
		switch {
		case c <= d.saved:
			return fmt.Sprintf(", and saved is %d: event %d was handled before, want each once", d.saved, c)
		case d.unsaved != 0:
			return fmt.Sprintf(" before %d, which was handled, was saved", d.unsaved)
		case d.b.ctx.Err() != nil:
			return " when the context had ended, want no other"
		}
		return ""
	}, func() {
		if d.during != nil && c == 1 {
			d.during()
		}
		time.Sleep(d.takes)
	}, func() { d.handled, d.unsaved = append(d.handled, c), c })
}

func (d *disk) Load() (saved uint64, err error) {
	err = d.call("Load", fine, func() {}, func() { saved = d.saved })
	return saved, err
}

func (d *disk) Save(c uint64) error {
	return d.call(fmt.Sprintf("Save(%d)", c), func() string {
		switch {
		case c == d.unsaved:
			return ""
		case c <= d.saved:
			return fmt.Sprintf(", and saved is %d: want a greater cursor, of an event that was handled", d.saved)
		}
		return fmt.Sprintf(", and handle had not returned for event %d: if the program crashes now, that event is lost", c)
	}, func() {}, func() { d.saved, d.unsaved = c, 0 })
}

func (d *disk) Resync(ctx context.Context) error {
	own, has := ctx.Deadline()
	if callers, _ := d.b.ctx.Deadline(); has && !own.Equal(callers) {
		d.b.fault("Resync got a deadline, %v away, which the caller did not set", time.Until(own).Round(time.Second))
	}
	err := d.call("Resync", fine, func() {
		if d.hangs {
			<-ctx.Done()
			time.Sleep(time.Second / 10) // or it may have ended when resume returns
		}
	}, func() {
		if len(d.resyncs) == 0 {
			d.resyncs = []uint64{0}
			if !d.hangs {
				d.b.fault("Resync was called more often than the server had answered OutOfRange")
			}
		}
		d.saved, d.resyncs, d.handled = d.resyncs[0], d.resyncs[1:], nil
		opened := len(d.b.asked())
		time.AfterFunc(2*time.Second+2*lab.Latency, func() {
			if d.b.ctx.Err() == nil && len(d.b.asked()) == opened {
				d.b.fault("2s after Resync there was no Watch yet, want one by then")
			}
		})
	})
	return errors.Join(err, ctx.Err())
}

// call runs f until it returns or a fault is found.
func (b *bench) call(f func()) {
	done := make(chan bool)
	go func() {
		defer close(done)
		b.Call("resume", b.limit, f)
	}()
	select {
	case <-done:
	case <-b.faulted:
	}
	if b.Failed() {
		b.FailNow()
	}
}

// resume calls resume, and checks what must hold a second after each return.
// took is how long it has run.
func (b *bench) resume(ctx context.Context, d *disk, what string) (took time.Duration, err error) {
	b.Helper()
	b.ctx, b.d, b.what, d.b, d.over, d.unsaved = ctx, d, what, b, "", 0
	began := time.Now()
	b.call(func() { err = resume(ctx, b.client, d, d.handle) })
	took = time.Since(began)
	d.mu.Lock()
	running, unsaved, over := d.running, d.unsaved, d.over
	d.over = "resume had returned"
	d.mu.Unlock()
	switch {
	case running != "":
		b.Fatalf("%s: resume returned %v while %s ran", what, err, running)
	case unsaved != 0 && over == "":
		b.Fatalf("%s: resume returned %v, event %d was handled and never saved: it will be handled again", what, err, unsaved)
	}
	time.Sleep(time.Second)
	if stuck := b.Stuck(); strings.Contains(stuck, "answer.go") {
		b.Fatalf("%s and resume returned %v; a second later: %s", what, err, stuck)
	} else if b.Failed() {
		b.FailNow()
	}
	return took, err
}

// want is for a resume that returns nil: it checks what was handled, and after
// which cursors the server was asked.
func (b *bench) want(d *disk, what string, handled, asked []uint64) {
	b.Helper()
	took, err := b.resume(b.Context(), d, what)
	if err != nil {
		b.Fatalf("%s: resume returned %v after %v, want nil", what, err, took.Round(time.Second))
	}
	b.had(d, handled, asked)
}

func (b *bench) had(d *disk, handled, asked []uint64) {
	b.Helper()
	if got := b.asked(); !slices.Equal(got, asked) {
		b.Fatalf("%s: resume opened streams with after_cursor %v, want %v", b.what, got, asked)
	}
	if !slices.Equal(d.handled, handled) {
		b.Fatalf("%s: handled were %v, want %v", b.what, d.handled, handled)
	}
}

func (b *bench) asked() (after []uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.streams {
		after = append(after, s.after)
	}
	return after
}

func list(from, to uint64) (l []uint64) {
	for ; from <= to; from++ {
		l = append(l, from)
	}
	return l
}

func TestResumeHandlesEachEventAndThenSavesIt(t *testing.T) {
	for _, takes := range []time.Duration{0, time.Second} {
		on(t, []script{{list(1, 5), ends}}, func(b *bench) {
			b.want(&disk{takes: takes}, "the server sent 1 to 5 and ended the stream with OK", list(1, 5), []uint64{0})
		})
	}
}

func TestAQuietStreamIsLeftOpen(t *testing.T) {
	quiet := func(_ *bench, stream watchServer) error {
		time.Sleep(60 * day)
		return stream.Send(&feedv1.Event{Topic: "deploys", Cursor: 4})
	}
	on(t, []script{{list(1, 3), quiet}}, func(b *bench) {
		b.client, b.limit = feedv1.NewFeedServiceClient(b.link.Dial()), 70*day
		b.want(&disk{}, "the server sent 1 to 3, and 60 days later 4", list(1, 4), []uint64{0})
	})
}

func TestResumeBeginsBehindTheSavedCursor(t *testing.T) {
	on(t, []script{{[]uint64{1 << 40, 1<<63 + 7}, ends}, {[]uint64{1<<63 + 9}, ends}}, func(b *bench) {
		d := &disk{saved: 77}
		what, handled := "77 was saved, the server sent 1<<40 and 1<<63+7 (a cursor may jump, and is a uint64)", []uint64{1 << 40, 1<<63 + 7}
		b.want(d, what, handled, []uint64{77})
		b.want(d, what+", and later, to a second call of resume, 1<<63+9", append(handled, 1<<63+9), []uint64{77, 1<<63 + 7})
	})
}

// breaks are ends that pass.
var breaks = []struct {
	what string
	end  func(*bench, watchServer) error
}{
	{"the server failed with Unavailable", fails(codes.Unavailable)},
	{"the server failed with ResourceExhausted", fails(codes.ResourceExhausted)},
	{"the network was cut", func(b *bench, stream watchServer) error {
		b.link.Cut()
		time.AfterFunc(700*time.Millisecond, b.link.Heal)
		return stays(b, stream)
	}},
	{"the server was restarted", func(b *bench, stream watchServer) error {
		go func() { b.stop(); time.Sleep(700 * time.Millisecond); b.serve() }()
		return stays(b, stream)
	}},
	{"the network was dead for a minute, until keepalive found out", func(b *bench, stream watchServer) error {
		b.link.Blackhole()
		time.AfterFunc(time.Minute, b.link.Heal)
		return stays(b, stream)
	}},
}

func TestAfterABreakItGoesOnBehindTheLastSaved(t *testing.T) {
	for _, c := range breaks {
		on(t, []script{{list(1, 3), c.end}, {list(4, 5), c.end}, {list(6, 8), ends}}, func(b *bench) {
			b.want(&disk{}, "after 3 and after 5 "+c.what, list(1, 8), []uint64{0, 3, 5})
		})
	}
	// What has come and was not handled when the stream broke may be handled or
	// not. If it was not, the server is asked for it.
	for _, c := range breaks[:3] {
		on(t, []script{{list(1, 5), c.end}, {list(1, 9), ends}}, func(b *bench) {
			d, what := &disk{takes: 3 * time.Second}, "5 events came, and while event 1 was handled "+c.what+"; the next stream brought 1 to 9, and ended with OK while some of them waited"
			_, err := b.resume(b.Context(), d, what)
			asked := b.asked()
			if n := len(asked); n == 2 && (asked[1] > 5 || asked[1] == 0) || err != nil {
				b.Fatalf("%s: resume returned %v and opened streams with after_cursor %v, want 0 and then the last that was saved", what, err, asked)
			}
			b.had(d, list(1, 9), asked)
		})
	}
}

func TestWhatTheServerSendsTwiceIsHandledOnce(t *testing.T) {
	on(t, []script{{[]uint64{2, 3, 4, 4, 5, 3, 6}, fails(codes.Unavailable)}, {[]uint64{5, 6, 7, 1, 8}, ends}}, func(b *bench) {
		b.want(&disk{saved: 3}, "saved was 3, the server sent 2 3 4 4 5 3 6, and on the next stream 5 6 7 1 8", list(4, 8), []uint64{3, 6})
	})
}

// failures are errors of the caller's own, which say nothing about the stream.
func failures() []error {
	return []error{
		errors.New("no disk"), status.Error(codes.Unavailable, "no database"), status.Error(codes.ResourceExhausted, "quota"),
		status.Error(codes.OutOfRange, "no such page"), io.EOF, context.Canceled, status.Error(codes.Canceled, "gone"),
	}
}

func TestAnErrorOfHandleIsReturned(t *testing.T) {
	for _, fail := range failures() {
		on(t, []script{{list(1, 5), ends}, {list(3, 5), ends}}, func(b *bench) {
			d, what := &disk{fails: map[string]error{"handle(3)": fail}}, fmt.Sprintf("handle(3) returned the error %q", fail)
			if _, err := b.resume(b.Context(), d, what); !errors.Is(err, fail) {
				b.Fatalf("%s: resume returned %v, want that", what, err)
			}
			b.had(d, list(1, 2), []uint64{0})
			d.fails = nil
			b.want(d, what+", and resume was called again", list(1, 5), []uint64{0, 2})
		})
	}
	on(t, []script{{list(1, 5), stays}}, func(b *bench) {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		fail := errors.New("no disk")
		d, what := &disk{during: cancel, fails: map[string]error{"handle(1)": fail}}, "the caller cancelled, and handle(1), which ran, returned an error of its own"
		if _, err := b.resume(ctx, d, what); !errors.Is(err, fail) {
			b.Fatalf("%s: resume returned %v, want that", what, err)
		}
	})
}

func TestAnErrorOfTheStoreIsReturned(t *testing.T) {
	for _, call := range []string{"Save(2)", "Load", "Resync"} {
		for _, fail := range failures() {
			scripts := []script{{list(1, 5), ends}}
			if call == "Resync" {
				scripts[0] = script{nil, fails(codes.OutOfRange)}
			}
			on(t, scripts, func(b *bench) {
				what := fmt.Sprintf("%s returned the error %q", call, fail)
				if _, err := b.resume(b.Context(), &disk{fails: map[string]error{call: fail}}, what); !errors.Is(err, fail) {
					b.Fatalf("%s: resume returned %v, want that", what, err)
				}
			})
		}
	}
}

func TestOutOfRangeIsAnsweredByAResync(t *testing.T) {
	tooOld := fails(codes.OutOfRange)
	for _, c := range []struct {
		what           string
		scripts        []script
		resyncs        []uint64
		handled, asked []uint64 // handled: since the last Resync
	}{
		{"saved was 10, which was too old; the snapshot reached to 40", []script{{nil, tooOld}, {list(41, 43), ends}}, []uint64{40}, list(41, 43), []uint64{10, 40}},
		{"after event 12 the stream ended with OutOfRange; the snapshot reached to 40", []script{{list(11, 12), tooOld}, {list(41, 43), ends}}, []uint64{40}, list(41, 43), []uint64{10, 40}},
		{"the snapshot was too old itself, and the next one too", []script{{nil, tooOld}, {nil, tooOld}, {nil, tooOld}, {list(61, 63), ends}}, []uint64{40, 50, 60}, list(61, 63), []uint64{10, 40, 50, 60}},
		{"11 and 12 were handled, the server lost its last events, and the snapshot reached to 4", []script{{list(11, 12), tooOld}, {list(5, 13), ends}}, []uint64{4}, list(5, 13), []uint64{10, 4}},
		{"after a resync to 40 the stream broke, and later came OutOfRange again", []script{{nil, tooOld}, {list(41, 42), fails(codes.Unavailable)}, {nil, tooOld}, {list(81, 82), ends}}, []uint64{40, 80}, list(81, 82), []uint64{10, 40, 42, 80}},
	} {
		on(t, c.scripts, func(b *bench) {
			d := &disk{saved: 10, resyncs: c.resyncs}
			b.want(d, c.what, c.handled, c.asked)
			if n := len(d.resyncs); n > 0 {
				b.Fatalf("%s: resume returned nil, and %d of %d calls of Resync were not made", c.what, n, len(c.resyncs))
			}
		})
	}
}

func TestAnyOtherStatusIsReturned(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if code == codes.Unavailable || code == codes.ResourceExhausted || code == codes.OutOfRange {
			continue
		}
		on(t, []script{{list(1, 2), fails(code)}}, func(b *bench) {
			d, what := &disk{}, fmt.Sprintf("after 2 events the server ended with %v, which is no break", code)
			if _, err := b.resume(b.Context(), d, what); status.Code(err) != code {
				b.Fatalf("%s: resume returned %v, want that status", what, err)
			}
			b.had(d, list(1, 2), []uint64{0})
		})
	}
}

// down is a client that cannot connect for a while.
type down struct {
	feedv1.FeedServiceClient
	b           *bench
	last, until time.Time
}

func (c *down) Watch(ctx context.Context, req *feedv1.WatchRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[feedv1.Event], error) {
	if took := time.Since(c.last); !c.last.IsZero() && (took < time.Second || took > 2*time.Second) {
		c.b.fault("%v after Watch had returned Unavailable it was called again, want 1s to 2s", took)
	}
	if c.last = time.Now(); c.last.Before(c.until) {
		return nil, status.Error(codes.Unavailable, "nobody is there")
	}
	return c.FeedServiceClient.Watch(ctx, req, opts...)
}

func TestBetweenTwoStreamsPassesASecond(t *testing.T) {
	var scripts []script
	for n := range uint64(20) {
		scripts = append(scripts, script{list(n+1, n+1), breaks[n%2].end})
	}
	on(t, append(scripts, script{nil, ends}), func(b *bench) {
		b.want(&disk{}, "20 streams broke after an event each", list(1, 20), list(0, 20))
		for i, s := range b.streams[1:] {
			if took := (s.at.Sub(b.streams[i].end) - 2*lab.Latency).Round(time.Millisecond); took < time.Second || took > 2*time.Second {
				b.Fatalf("%s: %v after the end of stream %d resume opened the next one, want 1s to 2s", b.what, took, i+1)
			}
		}
	})
	on(t, []script{{list(8, 9), ends}}, func(b *bench) {
		b.client, b.limit = &down{FeedServiceClient: b.client, b: b, until: time.Now().Add(day / 4)}, day
		ctx, cancel := context.WithCancel(b.Context()) // of its own the lab looks at each child
		defer cancel()
		d := &disk{saved: 7}
		took, err := b.resume(ctx, d, "there was no server for 6 hours, and then there was")
		if err != nil {
			b.Fatalf("%s: resume returned %v after %v, want nil", b.what, err, took)
		}
		b.had(d, list(8, 9), []uint64{7})
	})
}

func TestItReturnsSoonWhenTheCallersContextEnds(t *testing.T) {
	broken := script{nil, fails(codes.Unavailable)}
	for _, c := range []struct {
		what    string
		scripts []script
		before  func(*bench)
		hangs   bool
	}{
		{"it waited for an event", []script{{list(1, 2), stays}}, nil, false},
		{"there was no server", nil, (*bench).stop, false},
		{"it waited for the next try", []script{broken, broken, broken}, nil, false},
		{"the network was dead", []script{{nil, stays}}, func(b *bench) { b.link.Blackhole() }, false},
		{"Resync ran", []script{{nil, fails(codes.OutOfRange)}}, nil, true},
	} {
		for _, after := range []time.Duration{1100 * time.Millisecond, 2900 * time.Millisecond} {
			on(t, c.scripts, func(b *bench) {
				if b.limit = time.Minute; c.before != nil {
					c.before(b)
				}
				end := context.DeadlineExceeded
				ctx, cancel := context.WithTimeout(b.Context(), after)
				defer cancel()
				if after < 2*time.Second {
					end = context.Canceled
					time.AfterFunc(after-time.Millisecond, cancel)
				}
				took, err := b.resume(ctx, &disk{hangs: c.hangs}, fmt.Sprintf("while %s its caller's context ended (%v)", c.what, end))
				if !errors.Is(err, end) && status.Code(err) != status.FromContextError(end).Code() {
					b.Fatalf("%s: resume returned %v, want that", b.what, err)
				}
				if took > after+time.Second {
					b.Fatalf("%s: resume returned %v later, want at most 1s", b.what, (took - after).Round(time.Millisecond))
				}
				b.link.Heal()
			})
		}
	}
}

func TestWhatIsHandledWhenTheContextEndsIsSaved(t *testing.T) {
	for _, takes := range []time.Duration{0, 5 * time.Second} {
		on(t, []script{{list(1, 200), stays}}, func(b *bench) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			d, what := &disk{takes: takes, during: func() { time.Sleep(takes); cancel() }}, "events came, and the caller cancelled while handle(1) ran, which then returned nil"
			if _, err := b.resume(ctx, d, what); err == nil {
				b.Fatalf("%s: resume returned nil, want the end of the context", what)
			}
			if d.saved != 1 {
				b.Fatalf("%s: saved is %d, want 1", what, d.saved)
			}
		})
	}
}

func TestNothingIsLeft(t *testing.T) {
	broken := script{list(1, 2), fails(codes.Unavailable)}
	for _, c := range []struct {
		what    string
		scripts []script
		fails   string
		takes   time.Duration
	}{
		{"handle failed", []script{{list(1, 5), stays}}, "handle(3)", 0},
		{"handle(2) failed while 198 events waited", []script{{list(1, 200), stays}}, "handle(2)", 3 * time.Second},
		{"Save failed", []script{{list(1, 5), stays}}, "Save(3)", 0},
		{"Resync failed", []script{broken, {nil, fails(codes.OutOfRange)}}, "Resync", 0},
		{"the stream ended with OK", []script{broken, {nil, ends}}, "", 0},
		{"the server failed", []script{broken, {nil, fails(codes.NotFound)}}, "", 0},
	} {
		on(t, c.scripts, func(b *bench) {
			b.resume(b.Context(), &disk{takes: c.takes, fails: map[string]error{c.fails: errors.New("no disk")}}, c.what)
			if leaks := b.Leaks(); len(leaks) > 0 {
				b.Fatalf("%s and resume returned; with the connection open there is still: %s", c.what, strings.Join(leaks, "\n"))
			}
		})
	}
	var scripts []script
	for n := range uint64(50) {
		scripts = append(scripts, script{list(n+1, n+1), breaks[0].end})
	}
	later := func(*bench, watchServer) error { time.Sleep(5 * time.Minute); return nil }
	on(t, append(scripts, script{nil, later}), func(b *bench) {
		time.AfterFunc(5*time.Minute, func() {
			for _, line := range b.Leaks() { // of what it needs now it has one each
				if strings.Contains(line, " times)") {
					b.fault("while resume follows the next one: %s", line)
				}
			}
		})
		b.want(&disk{}, "50 streams broke", list(1, 50), list(0, 50))
	})
}

func TestTwoRunsAtOnceDoNotKnowEachOther(t *testing.T) {
	broken, whole := script{list(1, 30), fails(codes.Unavailable)}, script{list(1, 40), ends}
	on(t, []script{broken, broken, whole, whole}, func(b *bench) {
		one, other := &disk{b: b, takes: 100 * time.Millisecond}, &disk{b: b, saved: 20, takes: 70 * time.Millisecond}
		b.d, b.what = one, "two calls of resume at once, from 0 and from 20"
		b.call(func() {
			var all sync.WaitGroup
			for _, d := range []*disk{one, other} {
				all.Go(func() { resume(b.Context(), b.client, d, d.handle) })
				b.Settle()
				if b.LockWanted() {
					b.fault("one waits for a mutex that the other holds, want both to go on")
				}
				time.Sleep(time.Millisecond)
			}
			all.Wait()
		})
		if !slices.Equal(one.handled, list(1, 40)) || !slices.Equal(other.handled, list(21, 40)) {
			b.Fatalf("%s: handled were %v and %v, want 1 to 40 and 21 to 40", b.what, one.handled, other.handled)
		}
	})
}
