package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

const ms = time.Millisecond

// A way is a client and a handler.
type way struct {
	name   string
	follow follower
	watch  func(*feed, uint64, watchServer) error
	add    func(*ledger, *feedv1.Event) error
	resync func(*ledger)
}

var (
	right = way{"resume, addOnce, subscribeThenReplay", resume, (*feed).subscribeThenReplay, (*ledger).addOnce, nil}

	savingFirst  = way{"saved before it is handled", resumeSavingFirst, right.watch, right.add, nil}
	fromReceived = way{"resumed from the last received", resumeFromReceived, right.watch, right.add, nil}
	addingTwice  = way{"no dedupe", resume, right.watch, (*ledger).add, nil}
	withoutOne   = way{"no cursor", resumeWithoutCursor, right.watch, right.add, nil}
	replayFirst  = way{"subscribed after the replay", resume, (*feed).replayThenSubscribe, right.add, nil}
	fromTheFirst = way{"OutOfRange: from the first that is kept", resume, right.watch, right.add, func(l *ledger) { l.saved = 0 }}
)

// trim forgets all but the newest events.
func (f *feed) trim(keep int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.log) - keep; n > 0 {
		f.trimmed = f.log[n-1].GetCursor()
		f.log = f.log[n:]
	}
}

func (f *feed) newest() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// A process is a client until it is killed: from then on it writes nothing.
type process struct {
	mu     sync.Mutex
	dead   bool
	disk   *ledger
	way    way
	hook   func(ev *feedv1.Event) error // called when handle begins
	unsave func(cursor uint64) error    // called between handle and Save
	ctx    context.Context
	cancel context.CancelFunc
	err    error // of follow, when done is closed
	done   chan struct{}
}

func (p *process) alive(write func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errCrash
	}
	return write()
}

func (p *process) handle(ev *feedv1.Event) error {
	if err := p.hook(ev); err != nil {
		return err
	}
	return p.alive(func() error { return p.way.add(p.disk, ev) })
}

func (p *process) Load() (uint64, error) { return p.disk.Load() }

func (p *process) Save(cursor uint64) error {
	if err := p.unsave(cursor); err != nil {
		return err
	}
	return p.alive(func() error { return p.disk.Save(cursor) })
}

func (p *process) Resync(ctx context.Context) error {
	return p.alive(func() error {
		if p.way.resync != nil {
			p.way.resync(p.disk)
			return nil
		}
		return p.disk.Resync(ctx)
	})
}

// entries is what the disk has now.
func (p *process) entries() []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.disk.entries)
}

func (p *process) start(ctx context.Context, client feedv1.FeedServiceClient) {
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		p.err = p.way.follow(p.ctx, client, p, 300*ms, p.handle)
	}()
}

func (p *process) kill() error {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.cancel()
	<-p.done
	return p.err
}

// deterministic is dialOptions with quicker answers, and without chance.
func deterministic() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * ms, Multiplier: 1.6, MaxDelay: time.Second}, MinConnectTimeout: 2 * time.Second}),
	}
}

var patient = grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second})

// A bench is a feed, and a client of it that has not begun.
type bench struct {
	*lab.Lab
	*feed
	link   *lab.Link
	srv    *grpc.Server
	client feedv1.FeedServiceClient
	disk   *ledger
	p      *process
}

// on runs body with a feed that has n events.
func on(t *testing.T, w way, n int, body func(*bench), opts ...grpc.DialOption) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{Lab: l, feed: newFeed(w.watch, 0), link: l.NewLink()}
		b.disk = &ledger{snapshot: b.newest}
		b.srv = b.link.Serve(b.feed, patient)
		b.client = feedv1.NewFeedServiceClient(b.link.Dial(append(deterministic(), opts...)...))
		b.p = &process{disk: b.disk, way: w, hook: func(*feedv1.Event) error { return nil }, unsave: func(uint64) error { return nil }}
		b.add(n)
		body(b)
		if b.p.cancel != nil {
			b.p.kill()
		}
	}, lab.Lasts(100*24*time.Hour))
}

// add publishes n events, a millisecond apart.
func (b *bench) add(n int) {
	for range n {
		b.publish("")
		time.Sleep(ms)
	}
}

// begin starts the client, which starts again after each crash.
func (b *bench) begin() {
	follow := b.p.way.follow
	b.p.way.follow = func(ctx context.Context, c feedv1.FeedServiceClient, st store, wait time.Duration, h func(*feedv1.Event) error) error {
		for {
			if err := follow(ctx, c, st, wait, h); !errors.Is(err, errCrash) {
				return err
			}
		}
	}
	b.p.start(b.Context(), b.client)
	time.Sleep(time.Second)
}

// outage cuts the network for a second, in which n events are published.
func (b *bench) outage(n int) {
	b.link.Cut()
	time.Sleep(time.Second)
	b.add(n)
	b.link.Heal()
	time.Sleep(3 * time.Second)
}

// want checks the entries that the client has.
func (b *bench) want(what string, want ...uint64) {
	b.Helper()
	got := b.p.entries()
	if !slices.Equal(got, want) {
		b.Errorf("%s: handled %v, want %v", what, got, want)
	}
	b.Logf("%s: handled %v", what, got)
}

// once returns a hook that crashes its client at a cursor, one time.
func once(at uint64) func(uint64) error {
	return func(cursor uint64) error {
		if cursor != at {
			return nil
		}
		at = 0
		return errCrash
	}
}

// The recording that the README shows.
func TestTheRecordingIsFresh(t *testing.T) {
	on(t, right, 2, func(b *bench) {
		note := func(format string, args ...any) { b.link.Note(lab.Client, format, args...) }
		b.disk.snapshot = func() uint64 { note("resync, by a snapshot up to event %d", b.newest()); return b.newest() }
		b.link.Mark()
		b.begin()
		note("the network is cut; event 3 is published")
		b.outage(1)
		note("cut; events 4 to 6 are published, the log keeps 6")
		b.link.Cut()
		b.add(3)
		b.trim(1)
		time.Sleep(time.Second)
		b.link.Heal()
		time.Sleep(2 * time.Second)
		var frames []string
		for line := range strings.Lines(b.link.Ladder()) {
			if !strings.Contains(line, "SETTINGS") && !strings.Contains(line, "WINDOW_UPDATE") {
				frames = append(frames, line)
			}
		}
		lab.Golden(t, "wire.txt", strings.Join(frames, ""))
		b.want("in the recording", 1, 2, 3, 4, 5, 6)
	})
}

func TestWithoutACursorEventsComeTwice(t *testing.T) {
	w := addingTwice
	w.follow = resumeWithoutCursor
	on(t, w, 3, func(b *bench) {
		b.begin()
		b.outage(1)
		b.want("the log has all, and the client asks for all", 1, 2, 3, 1, 2, 3, 4)
	})
}

func TestWithoutALogEventsAreMissing(t *testing.T) {
	on(t, withoutOne, 0, func(b *bench) {
		b.begin()
		b.add(3)
		time.Sleep(time.Second)
		b.link.Cut()
		b.add(2)
		b.trim(0)
		b.link.Heal()
		time.Sleep(3 * time.Second)
		b.add(1)
		time.Sleep(time.Second)
		b.want("the server keeps nothing, 4 and 5 are published in an outage", 1, 2, 3, 6)
	})
}

// against runs body with a broken way, which leaves want of n events, and with
// the right one, which leaves all.
func against(t *testing.T, broken way, what string, n int, want []uint64, body func(*bench)) {
	t.Helper()
	for _, w := range []way{broken, right} {
		on(t, w, 5, func(b *bench) {
			body(b)
			if w.name == right.name {
				want = []uint64{1, 2, 3, 4, 5, 6}[:n]
			}
			b.want(w.name+": "+what, want...)
		})
	}
}

func TestSavedBeforeItIsHandledAnEventIsLost(t *testing.T) {
	against(t, savingFirst, "a crash while event 2 is handled", 5, []uint64{1, 3, 4, 5}, func(b *bench) {
		crash := once(2)
		b.p.hook = func(ev *feedv1.Event) error { return crash(ev.GetCursor()) }
		b.begin()
	})
}

func TestFromTheLastReceivedWhatWaitedIsLost(t *testing.T) {
	against(t, fromReceived, "5 have come, and the network is cut while event 1 is handled", 6, []uint64{1, 6}, func(b *bench) {
		b.p.hook = func(ev *feedv1.Event) error { pause(b.p.ctx, 2*time.Second); return nil }
		b.begin()
		b.outage(1)
		time.Sleep(time.Minute)
	})
}

// Whatever the order of the two, something may happen between them.
func TestACrashBetweenHandleAndSaveMakesOneDouble(t *testing.T) {
	for crash := range 5 {
		want := slices.Insert([]uint64{1, 2, 3, 4, 5}, crash, uint64(crash+1))
		against(t, addingTwice, fmt.Sprintf("a crash between handle and save of event %d", crash+1), 5, want, func(b *bench) {
			b.p.unsave = once(uint64(crash + 1))
			b.begin()
		})
	}
}

// oneTable keeps no cursor beside its entries: the last entry is the cursor, and
// Save has nothing to do.
type oneTable struct{ *process }

func (t oneTable) Load() (uint64, error) {
	if n := len(t.disk.entries); n > 0 {
		return t.disk.entries[n-1], nil
	}
	return 0, nil
}

func TestOneTransactionLeavesNothingBetween(t *testing.T) {
	w := addingTwice
	w.follow = func(ctx context.Context, c feedv1.FeedServiceClient, st store, wait time.Duration, h func(*feedv1.Event) error) error {
		return resume(ctx, c, oneTable{st.(*process)}, wait, h)
	}
	for crash := range uint64(5) {
		on(t, w, 5, func(b *bench) {
			b.p.unsave = once(crash + 1)
			b.begin()
			b.want(fmt.Sprintf("entry and cursor are one: a crash after event %d", crash+1), 1, 2, 3, 4, 5)
		})
	}
}

// repeats sends each event twice, and the first once more at the end.
func repeats(f *feed, after uint64, stream watchServer) error {
	kept, err := f.since(after)
	for _, ev := range kept {
		err = errors.Join(err, stream.Send(ev), stream.Send(ev), stream.Send(kept[0]))
	}
	<-stream.Context().Done()
	return err
}

func TestWhatTheServerSendsTwiceIsHandledOnce(t *testing.T) {
	w := addingTwice
	w.watch = repeats
	on(t, w, 3, func(b *bench) {
		b.begin()
		b.want("the server sent 1 1 1 2 2 1 3 3 1", 1, 2, 3)
	})
}

// subscribeAndRepeat registers first, too, but does not skip.
func subscribeAndRepeat(f *feed, after uint64, stream watchServer) error {
	live, leave := f.subscribe()
	defer leave()
	if _, err := f.replay(after, stream); err != nil {
		return err
	}
	return goOn(live, 0, stream)
}

// Ten events are replayed in 100 ms, and 11 is published at each moment of that.
// The log is read in one go, at the beginning of the replay.
func TestTheOrderOfSubscribingAndReplayingDecides(t *testing.T) {
	for _, tt := range []struct {
		name           string
		watch          func(*feed, uint64, watchServer) error
		missing, twice int
	}{
		{"replayThenSubscribe", (*feed).replayThenSubscribe, 10, 0},
		{"subscribeAndRepeat", subscribeAndRepeat, 0, 1},
		{"subscribeThenReplay", (*feed).subscribeThenReplay, 0, 0},
	} {
		missing, twice := 0, 0
		w := right
		w.watch = tt.watch
		for at := time.Duration(0); at < 15; at++ {
			on(t, w, 10, func(b *bench) {
				b.reads = 10 * ms
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				stream, err := b.client.Watch(ctx, &feedv1.WatchRequest{})
				if err != nil {
					b.Fatal(err)
				}
				time.Sleep(lab.Latency - ms + at*10*ms) // the replay begins a millisecond later
				if at == 0 {
					b.Settle()
				}
				b.publish("11")
				time.AfterFunc(time.Second, cancel)
				n := 0
				for ev, err := stream.Recv(); err == nil; ev, err = stream.Recv() {
					if ev.GetBody() == "11" {
						n++
					}
				}
				if n == 0 {
					missing++
				}
				if n > 1 {
					twice++
				}
			})
		}
		if missing != tt.missing || twice != tt.twice {
			t.Errorf("%s: of 15 events published around the replay %d are missing and %d come twice, want %d, %d", tt.name, missing, twice, tt.missing, tt.twice)
		}
		t.Logf("%s: of 15 events published around the replay %d are missing and %d come twice", tt.name, missing, twice)
	}
}

// A cursor that the log cannot serve stays so, however long one waits.
func TestACursorThatIsTooOldStaysOutOfRange(t *testing.T) {
	on(t, right, 10, func(b *bench) {
		b.trim(3)
		for _, tt := range []struct {
			after uint64
			want  string
		}{
			{6, "OutOfRange: cursor 6, log 8 to 10"},
			{7, "8 9 10"}, // what comes behind it is there
			{10, ""},
			{11, "OutOfRange: cursor 11, log 8 to 10"}, // a server that has lost the end of its log
			{0, "8 9 10"}, // is never too old
		} {
			for range 24 {
				got := b.read(tt.after)
				if got != tt.want {
					b.Errorf("after_cursor %d: %q, want %q", tt.after, got, tt.want)
				}
				time.Sleep(time.Hour)
			}
			b.Logf("after_cursor %d, for a day: %q", tt.after, tt.want)
		}
	})
}

// read opens a stream for a second and says what it brought.
func (b *bench) read(after uint64) string {
	ctx, cancel := context.WithTimeout(b.Context(), time.Second)
	defer cancel()
	var got []string
	end, _ := watch(ctx, b.client, after, func(ev *feedv1.Event) error {
		got = append(got, fmt.Sprint(ev.GetCursor()))
		return nil
	})
	if s := status.Convert(end); s.Code() != codes.DeadlineExceeded {
		return s.Code().String() + ": " + s.Message()
	}
	return strings.Join(got, " ")
}

// The log keeps 3 of 6 events that are published in an outage.
func TestOnlyAResyncBringsBackWhatIsNotKept(t *testing.T) {
	retry := right
	retry.resync = func(*ledger) {}
	for _, tt := range []struct {
		name string
		way  way
		want []uint64
	}{
		{"OutOfRange is retried for a minute", retry, []uint64{1, 2}},
		{fromTheFirst.name, fromTheFirst, []uint64{1, 2, 6, 7, 8}},
		{"resync", right, []uint64{1, 2, 3, 4, 5, 6, 7, 8}},
	} {
		on(t, tt.way, 2, func(b *bench) {
			b.begin()
			b.link.Cut()
			b.add(6)
			b.trim(3)
			b.link.Heal()
			time.Sleep(time.Minute)
			b.want(tt.name, tt.want...)
		})
	}
}

func TestASlowClientIsCutOffAndLosesNothing(t *testing.T) {
	on(t, right, 0, func(b *bench) {
		b.p.hook = func(*feedv1.Event) error { pause(b.p.ctx, 10*ms); return nil }
		b.begin()
		const n = 1000
		for range n {
			b.publish(strings.Repeat("x", 1000))
			time.Sleep(ms)
		}
		time.Sleep(time.Minute)
		opened := strings.Count(b.link.Ladder(), "HEADERS  /feed.v1.FeedService/Watch")
		entries := b.p.entries()
		if code := status.Code(b.RPCs()[0].Err); code != codes.ResourceExhausted {
			b.Errorf("the first stream ended with %v, want ResourceExhausted", code)
		}
		in := slices.IsSorted(entries) && len(slices.Compact(slices.Clone(entries))) == n
		if !in || len(entries) != n || opened < 2 {
			b.Errorf("of %d events %d were handled, each once and in order: %v, by %d streams, want all, by some", n, len(entries), in, opened)
		}
		b.Logf("1,000 events a second, 100 are handled: all were, each once, by %d streams", opened)
	})
}

// internal/transport/transport.go, recvBufferReader.readClient: the end of the
// context is queued behind the messages that have come.
func TestResumeEndsWithItsContext(t *testing.T) {
	on(t, right, 60, func(b *bench) {
		ctx, cancel := context.WithCancel(b.Context())
		stream, err := b.client.Watch(ctx, &feedv1.WatchRequest{})
		if err != nil {
			b.Fatal(err)
		}
		time.Sleep(time.Second)
		cancel()
		b.Settle()
		queued := 0
		for ; err == nil; queued++ {
			_, err = stream.Recv()
		}
		b.p.hook = func(*feedv1.Event) error { time.Sleep(200 * ms); return nil }
		b.begin()
		time.Sleep(100 * ms) // the sixth event is being handled
		ended := time.Now()
		b.p.cancel()
		<-b.p.done
		took := time.Since(ended)
		if queued-1 != 60 || took > 200*ms {
			b.Errorf("after the end of its context Recv returned %d events, and resume returned after %v, want 60 and at most 200ms", queued-1, took)
		}
		b.Logf("after the end of its context Recv returned %d events, and resume returned within 200ms", queued-1)
	})
}

// Its code is that of another call, which handle has made.
func TestAnErrorOfHandleIsNotOneOfTheStream(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.OutOfRange, codes.Canceled} {
		on(t, right, 3, func(b *bench) {
			b.p.hook = func(ev *feedv1.Event) error { return status.Error(code, "the database") }
			b.p.start(b.Context(), b.client)
			<-b.p.done
			err := b.p.err
			if status.Convert(err).Message() != "the database" || len(b.RPCs()) != 1 || b.disk.saved != 0 {
				b.Errorf("handle returned %v: resume returned %v, opened %d streams, saved %d, want that error, 1, 0", code, err, len(b.RPCs()), b.disk.saved)
			}
			b.Logf("handle returned %v: so did resume, after %d stream, saved: %d", code, len(b.RPCs()), b.disk.saved)
		})
	}
}

// internal/transport/http2_server.go, handlePing: the third ping that comes
// before MinTime has passed is one too many. The client then doubles its own
// Time (clientconn.go, adjustParams).
func TestTheServersOptionsLetTheClientAsk(t *testing.T) {
	for _, tt := range []struct {
		what string
		opts []grpc.ServerOption
		want int
	}{{"by default", nil, 5}, {"with serverOptions", serverOptions(), 1}} {
		on(t, right, 1, func(b *bench) {
			b.srv.Stop()
			b.link.Serve(b.feed, tt.opts...)
			b.client = feedv1.NewFeedServiceClient(b.link.Dial(dialOptions()...))
			b.begin()
			time.Sleep(time.Hour)
			if got := len(b.RPCs()); got != tt.want {
				b.Errorf("%s the client opened %d streams in an idle hour, want %d", tt.what, got, tt.want)
			}
			b.Logf("%s the client opened %d streams in an idle hour", tt.what, len(b.RPCs()))
		})
	}
}

func TestTheClientsOptionsEndADeadNetworkAndComeBack(t *testing.T) {
	on(t, right, 1, func(b *bench) {
		b.srv.Stop()
		b.link.Serve(b.feed, serverOptions()...)
		b.client = feedv1.NewFeedServiceClient(b.link.Dial(dialOptions()...))
		b.begin()
		b.link.Blackhole()
		cut := time.Now()
		for len(b.RPCs()) == 1 {
			time.Sleep(100 * ms)
		}
		noticed := time.Since(cut)
		b.add(1)
		b.link.Cut()
		time.Sleep(10 * time.Minute)
		b.link.Heal()
		back := time.Now()
		for len(b.p.entries()) == 1 {
			time.Sleep(100 * ms)
		}
		took := time.Since(back)
		if noticed > 41*time.Second || took > 7*time.Second {
			b.Errorf("the dead network was noticed after %v, and when it was back the client took %v, want at most 41s and 7s", noticed, took)
		}
		b.Logf("the dead network was noticed after at most 41s, and when it was back the client took at most 7s")
	})
}
