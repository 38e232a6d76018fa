package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

type watchClient = grpc.ServerStreamingClient[feedv1.Event]

// sends is the formula of chapter 19: how many messages Send takes for a peer
// that does not read. wire is what one takes of the stream.
func sends(wire int) int64 { return int64((lab.Window + 64<<10 + wire - 1) / wire) }

// kib is what an event of the chapter takes of a stream.
const kib = 1024 + 5

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// A bench has one feed and clients on one connection.
type bench struct {
	*lab.Lab
	feed
	ctx       context.Context
	client    feedv1.FeedServiceClient
	link      *lab.Link
	published atomic.Int64
	handlers  atomic.Int64 // that run
}

func (b *bench) watch(stream watchServer) error {
	b.handlers.Add(1)
	defer b.handlers.Add(-1)
	return b.feed.watch(stream)
}

// with runs body with a bench in the lab, whose clients leave at its end.
func inLab(t *testing.T, f func(size int) feed, size int, body func(*bench)) {
	lab.Run(t, func(l *lab.Lab) { newBench(l, f(size), body) }, lab.Lasts(3*time.Hour))
}

func newBench(l *lab.Lab, f feed, body func(*bench), opts ...grpc.DialOption) {
	b := &bench{Lab: l, feed: f, link: l.NewLink()}
	b.link.Serve(&server{feed: b})
	b.client = feedv1.NewFeedServiceClient(b.link.Dial(opts...))
	ctx, cancel := context.WithCancel(l.Context())
	defer cancel()
	b.ctx = ctx
	body(b)
}

// enter returns a client that has subscribed.
func (b *bench) enter() watchClient {
	b.Helper()
	stream, err := open(b.ctx, b.client)
	if err != nil {
		b.Fatal(err)
	}
	return stream
}

// publishing publishes n events in a goroutine, one each interval, and late
// ones at once, and then does what follows.
func (b *bench) publishing(n int64, interval time.Duration, then func()) {
	began := time.Now()
	go func() {
		for i := range n {
			time.Sleep(time.Until(began.Add(time.Duration(i) * interval)))
			if b.ctx.Err() != nil {
				return
			}
			b.publish(event(i))
			b.published.Add(1)
		}
		then()
	}()
}

func nothing() {}

// A reading is what a client got.
type reading struct {
	mu     sync.Mutex
	bodies []int64 // the numbers of the events
	at     []time.Time
	err    error // nil as long as it reads
}

func (r *reading) n() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.bodies))
}

func (r *reading) end() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// readAll reads to the end.
func (r *reading) readAll(stream watchClient) {
	for {
		ev, err := stream.Recv()
		i, _ := strconv.ParseInt(strings.TrimSpace(ev.GetBody()), 10, 64)
		r.mu.Lock()
		if err != nil {
			r.err = err
			r.mu.Unlock()
			return
		}
		r.bodies, r.at = append(r.bodies, i), append(r.at, time.Now())
		r.mu.Unlock()
	}
}

// goes returns a reading that goes on.
func (b *bench) goes(stream watchClient) *reading {
	r := &reading{}
	go r.readAll(stream)
	return r
}

func TestOneStalledReaderStopsThePublisher(t *testing.T) {
	inLab(t, ways[0].feed, 0, func(b *bench) {
		first := b.goes(b.enter())
		stalled := b.enter()
		last := b.goes(b.enter())
		b.publishing(1000, 10*time.Millisecond, nothing)
		time.Sleep(time.Hour)
		want := sends(kib)
		if got := b.published.Load(); want != 128 || got != want || first.n() != want+1 || last.n() != want {
			b.Errorf("%d published, %d and %d read, want 128, 129 and 128", got, first.n(), last.n())
		}
		b.Logf("an hour later: 1,000 events were due, %d are published; the client before the stalled one has %d, the one behind it %d", b.published.Load(), first.n(), last.n())
		r := b.goes(stalled)
		time.Sleep(time.Minute)
		if b.published.Load() != 1000 || r.n() != 1000 || last.n() != 1000 {
			b.Errorf("%d published, the stalled client got %d, want 1000", b.published.Load(), r.n())
		}
		b.Logf("it reads again, and all have all %d", last.n())
	})
}

// In real time: synctest does not count a goroutine that waits for a mutex as
// waiting, so virtual time would stand still.
func TestTheLockKeepsOutWhoComesAndWhoGoesOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		newBench(l, ways[0].feed(0), func(b *bench) {
			ctx, cancel := context.WithCancel(b.ctx)
			stalled, err := open(ctx, b.client)
			if err != nil {
				b.Fatal(err)
			}
			leaving, leave := context.WithCancel(b.ctx)
			if _, err := open(leaving, b.client); err != nil {
				b.Fatal(err)
			}
			b.publishing(200, 0, nothing)
			for b.published.Load() < sends(kib) {
				time.Sleep(time.Millisecond)
			}
			leave()
			entered := make(chan watchClient)
			go func() {
				stream, _ := open(b.ctx, b.client)
				entered <- stream
			}()
			select {
			case <-entered:
				b.Error("a client could subscribe while Send waited")
			case <-time.After(100 * time.Millisecond):
			}
			// Three: the stalled one, the one that has left, the one that comes.
			if n := b.handlers.Load(); n != 3 {
				b.Errorf("%d handlers run, want 3", n)
			}
			b.Logf("Send waits for one client: another one has left, and its handler runs; a third one comes, and is not let in; %d handlers", b.handlers.Load())
			cancel()
			stalled.Recv()
			<-entered
			for b.handlers.Load() != 1 {
				time.Sleep(time.Millisecond)
			}
			b.Logf("the stalled client leaves, and so does the other one: %d handler", b.handlers.Load())
		})
	})
}

// 128 that Send takes, one with which it waits, and the queue.
func TestAQueueThatBlocksPutsItOff(t *testing.T) {
	for _, size := range []int{1, 32, 400} {
		inLab(t, with(waitForRoom), size, func(b *bench) {
			reader := b.goes(b.enter())
			stalled := b.enter()
			b.publishing(1000, 10*time.Millisecond, nothing)
			time.Sleep(time.Hour)
			want := sends(kib) + 1 + int64(size)
			if got := b.published.Load(); got != want || reader.n() != want+1 {
				b.Errorf("queue of %d: %d published, the reader has %d, want %d and one more", size, got, reader.n(), want)
			}
			b.Logf("a queue of %3d: after %d events the publisher waits, an hour later, too", size, b.published.Load())
			b.goes(stalled)
			time.Sleep(time.Minute)
		})
	}
}

// 250 events are published, one each 20 ms, to ten clients on one connection, of
// which the fifth reads nothing until 4.3 s after the last one was due. Full seconds:
// how fast the backlog then goes over the connection is not the point.
func TestEachWayHasItsPrice(t *testing.T) {
	const n, size, every, pause = 250, 32, 20 * time.Millisecond, 9*time.Second + 253*time.Millisecond
	table := fmt.Sprintf("%-20s  %-15s  %-22s  %-8s  %s\n", "", "publisher, late", "the nine got, and late", "queue of", "the stalled one got, and")
	for _, way := range ways {
		inLab(t, way.feed, size, func(b *bench) {
			var readers []*reading
			var stalled watchClient
			for i := range 10 {
				if stream := b.enter(); i == 4 {
					stalled = stream
				} else {
					readers = append(readers, b.goes(stream))
				}
			}
			var queue *subscription
			if f, ok := b.feed.(*broker); ok {
				queue = f.all()[4]
			}
			began := time.Now()
			var late atomic.Int64
			b.publishing(n, every, func() {
				late.Store(int64(time.Since(began) - (n-1)*every))
				b.end()
			})
			time.Sleep(pause)
			most := 0 // nothing has left the queue
			if queue != nil {
				queue.mu.Lock()
				most = len(queue.queue)
				queue.mu.Unlock()
			}
			r := b.goes(stalled)
			time.Sleep(time.Minute)
			var lag time.Duration
			for i, other := range readers {
				if other.n() != n || !errors.Is(other.end(), io.EOF) {
					b.Fatalf("%s: reader %d got %d and %v", way.name, i, other.n(), other.end())
				}
				lag = max(lag, other.at[n-1].Sub(began)-(n-1)*every-lab.Latency)
			}
			end := r.end()                  // and the reading is over
			for i := range r.bodies[:129] { // what follows in the queue is the policy's
				if r.bodies[i] != int64(i) {
					b.Errorf("%s: event %d is %d", way.name, i, r.bodies[i])
				}
			}
			told := status.Code(end).String()
			if errors.Is(end, io.EOF) {
				told = "io.EOF"
			}
			row := fmt.Sprintf("%-20s  %-15s  %-22s  %-8d  %d, %s\n", way.name, time.Duration(late.Load()).Truncate(time.Second), fmt.Sprintf("%d, %v", n, lag.Truncate(time.Second)), most, r.n(), told)
			b.Log(strings.TrimSpace(row))
			table += row
		})
	}
	lab.Golden(t, "table.txt", table)
}

// An event is due each 40 ms, and a client stalls for a while. If it is
// disconnected it comes back at once; it is told nothing about what it missed.
func TestDropAndDisconnectLoseAlike(t *testing.T) {
	const size, every, longest = 32, 40 * time.Millisecond, 15
	const n = int64((longest + 1) * time.Second / every)
	lost := map[string][]int{}
	var stalls []int
	for _, way := range ways[3:] {
		stalls = nil
		for stall := 0; stall <= longest; stall += 3 {
			stalls = append(stalls, stall)
			inLab(t, way.feed, size, func(b *bench) {
				stream := b.enter()
				b.publishing(n, every, b.end)
				time.Sleep(time.Duration(stall)*time.Second + 7*time.Millisecond)
				r := &reading{}
				r.readAll(stream)
				if status.Code(r.err) == codes.ResourceExhausted {
					r.readAll(b.enter())
				}
				lost[way.name] = append(lost[way.name], int(n-r.n()))
			})
		}
		t.Logf("%-10s lost after stalls of %v s: %v", way.name, stalls, lost[way.name])
	}
	for i, stall := range stalls {
		drop, disconnect := lost["drop"][i], lost["disconnect"][i]
		if room := int(sends(kib)) + 1 + size; stall*25 < room && drop+disconnect > 0 || max(drop-disconnect, disconnect-drop) > 2 {
			t.Errorf("a stall of %d s: %d lost by drop, %d by disconnect", stall, drop, disconnect)
		}
	}
	lab.Golden(t, "lost.mmd", fmt.Sprintf("xychart-beta\n    x-axis \"seconds that the client stalls (25 events a second)\" %s\n"+
		"    y-axis \"events it never gets\" 0 --> 250\n    line [%s]\n    line [%s]\n    bar [%s]\n",
		"["+commas(stalls)+"]", commas(lost["coalesce"]), commas(lost["drop"]), commas(lost["disconnect"])))
}

func commas(all []int) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(all), "[]"), " ", ", ")
}

// What Send had taken before is not replaced any more: 129 old states come first.
func TestCoalesceEndsWithTheLastStateOfEach(t *testing.T) {
	inLab(t, with(coalesce), 32, func(b *bench) {
		stream := b.enter()
		b.publishing(300, 20*time.Millisecond, b.end)
		time.Sleep(10 * time.Second)
		r := b.goes(stream)
		time.Sleep(time.Minute)
		if !errors.Is(r.end(), io.EOF) {
			b.Fatalf("the client's stream ended with %v", r.end())
		}
		want := []int64{290, 291, 292, 293, 294, 295, 296, 297, 298, 299}
		tail := slices.Sorted(slices.Values(r.bodies[129:]))
		if !slices.Equal(tail, want) || r.bodies[128] != 128 {
			b.Errorf("after %d the client got %v, want %v", r.bodies[128], tail, want)
		}
		b.Logf("the client got states 0 to %d, and then %v, of things 0 to 9", r.bodies[128], tail)
	})
}

func TestTheStatusComesAfterWhatWasQueued(t *testing.T) {
	inLab(t, with(disconnect), 32, func(b *bench) {
		stream := b.enter()
		f := b.feed.(*broker)
		s := f.all()[0]
		b.publishing(1000, 20*time.Millisecond, nothing)
		time.Sleep(time.Hour)
		s.mu.Lock()
		queued := len(s.queue)
		s.mu.Unlock()
		if known := len(f.all()); known != 0 || queued != 32 || b.handlers.Load() != 1 {
			b.Errorf("after an hour the broker knows %d subscriptions, %d handlers run, and %d events are queued, want 0, 1 and 32", known, b.handlers.Load(), queued)
		}
		b.Logf("an hour later the broker has forgotten the client; its handler still waits in Send, and its queue holds %d", queued)
		r := &reading{}
		r.readAll(stream)
		if r.n() != 161 || status.Code(r.err) != codes.ResourceExhausted {
			b.Errorf("the client got %d events and %v, want 161 and ResourceExhausted", r.n(), r.err)
		}
		b.Logf("the client reads again: %d events, and then %v", r.n(), r.err)
		if n := b.handlers.Load(); n != 0 {
			b.Errorf("%d handlers run", n)
		}
	})
}

// letsGo sends from a goroutine, and returns when the subscription ends, even if
// that goroutine waits in Send: the return of the handler ends the stream's
// context, and that ends Send (internal/transport/http2_server.go, finishStream).
type letsGo struct {
	*broker
	sender chan error // how it ended
}

func (f letsGo) watch(stream watchServer) error {
	s := f.subscribe()
	defer f.forget(s)
	stream.SendHeader(nil)
	go func() {
		for {
			ev, err := s.next(stream.Context())
			if err == nil {
				err = stream.Send(ev)
			}
			if err != nil {
				f.sender <- err
				return
			}
		}
	}()
	for { // a real one would wait for a channel that is closed with err
		time.Sleep(time.Second)
		s.mu.Lock()
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func TestAHandlerThatReturnsFreesItsSend(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		f := letsGo{&broker{put: disconnect, size: 32}, make(chan error, 1)}
		newBench(l, f, func(b *bench) {
			stream := b.enter()
			b.publishing(1000, 20*time.Millisecond, nothing)
			time.Sleep(time.Hour)
			if n := b.handlers.Load(); n != 0 || len(f.sender) != 1 {
				b.Fatalf("%d handlers run, and %d Sends have returned, want 0 and 1", n, len(f.sender))
			}
			b.Logf("an hour later no handler runs; the Send that waited returned %q", <-f.sender)
			r := &reading{}
			r.readAll(stream)
			if r.n() != 128 || status.Code(r.err) != codes.ResourceExhausted {
				b.Errorf("the client got %d events and %v, want 128 and ResourceExhausted", r.n(), r.err)
			}
			b.Logf("the client reads again: %d events, and then %v", r.n(), r.err)
		})
	}, lab.Lasts(3*time.Hour))
}

// A client at the end of a long line cannot have read a burst before it is
// over, however fast it reads.
func TestABurstNeedsRoom(t *testing.T) {
	const burst = 300
	for _, size := range []int{32, burst} {
		inLab(t, with(disconnect), size, func(b *bench) {
			r := b.goes(b.enter())
			for range 3 {
				time.Sleep(time.Minute)
				b.publishing(burst, 0, nothing)
			}
			time.Sleep(time.Minute)
			want := codes.OK
			if size < burst {
				want = codes.ResourceExhausted
			}
			if got := status.Code(r.end()); got != want || want == codes.OK && r.n() != 3*burst {
				b.Errorf("queue of %d: the client got %d events and %v, want %v", size, r.n(), got, want)
			}
			b.Logf("three bursts of %d, and a client that reads at once; queue of %3d: %v", burst, size, want)
		})
	}
}

// The connection's window opens as data arrives, and not as it is read
// (internal/transport/http2_client.go, handleData).
func TestAStalledStreamStallsNoNeighbour(t *testing.T) {
	took := map[int]time.Duration{}
	for _, stalled := range []int{0, 20} {
		inLab(t, with(grow), 0, func(b *bench) {
			for range stalled {
				b.enter()
			}
			b.publishing(200, time.Millisecond, nothing) // fills them
			time.Sleep(time.Minute)
			received := map[uint32]int{}
			for _, f := range b.link.Frames() {
				if f.From == lab.Server && f.Type == "DATA" {
					received[f.Stream] += f.Length
				}
			}
			for stream, n := range received {
				if n != lab.Window {
					b.Errorf("the client holds %d B of the unread stream %d, want %d", n, stream, lab.Window)
				}
			}
			if len(received) != stalled {
				b.Errorf("%d streams have data, want %d", len(received), stalled)
			}
			r := b.goes(b.enter())
			began := time.Now()
			b.publishing(1000, 0, nothing)
			time.Sleep(time.Minute)
			if r.n() != 1000 {
				b.Fatalf("the reader got %d events", r.n())
			}
			took[stalled] = r.at[999].Sub(began)
			b.Logf("beside %2d stalled streams, of which the client holds %d B, one that reads gets 1,000 events in %v", stalled, len(received)*lab.Window, took[stalled])
		})
	}
	if took[0] != took[20] {
		t.Errorf("alone %v, beside 20 stalled streams %v", took[0], took[20])
	}
}

// A select with a default does not wait, and does not look whether the channel
// is closed either.
func TestADefaultDoesNotGuardAClosedChannel(t *testing.T) {
	c := make(chan int, 1)
	c <- 0
	close(c)
	var got any
	func() {
		defer func() { got = recover() }()
		select {
		case c <- 1:
		default:
		}
	}()
	if fmt.Sprint(got) != "send on closed channel" {
		t.Errorf("a send to a full and closed channel, with a default: %v", got)
	}
	t.Logf("a publisher sends, with a default, to a queue that was closed: panic: %v", got)
}

// The recording that the README shows. The first event, before it begins, is as
// much as Send takes of a client that reads nothing. The queue has one place. The connection's
// window is larger than all of it, so that the only credit is the stream's.
func TestTheRecordingIsFresh(t *testing.T) {
	large := strings.Repeat("x", lab.Window+64<<10-5-4-3)
	lab.Run(t, func(l *lab.Lab) {
		f := &broker{put: disconnect, size: 1}
		newBench(l, f, func(b *bench) {
			stream := b.enter()
			b.publish(&feedv1.Event{Id: "1", Body: large})
			time.Sleep(time.Second)
			b.link.Mark()
			began := time.Now()
			for i, note := range []string{"event 2: Send waits with it", "event 3: queued", "event 4: the queue is full; disconnected"} {
				time.Sleep(10 * time.Millisecond)
				b.publish(&feedv1.Event{Id: strconv.Itoa(i + 2)})
				b.link.Note(lab.Server, "%s", note)
				if known := len(f.all()) == 1; known != (i < 2) {
					b.Errorf("after event %d the broker knows the client: %v", i+2, known)
				}
			}
			time.Sleep(time.Until(began.Add(time.Second)))
			b.link.Note(lab.Client, "Recv, for the first time")
			r := &reading{}
			r.readAll(stream)
			b.link.Note(lab.Client, "Recv has returned %d events, and now %v", r.n(), status.Code(r.err))
			time.Sleep(time.Second)
			lab.Golden(t, "wire.txt", b.link.Ladder())
		}, grpc.WithStaticConnWindowSize(1<<20))
	})
}
