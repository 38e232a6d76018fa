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
func sends(wire int) int { return (lab.Window + 64<<10 + wire - 1) / wire }

// kib is what an event of the chapter takes of a stream.
const kib = 1024 + 5

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// A bench has one broker and clients on one connection.
type bench struct {
	*lab.Lab
	*broker
	ctx       context.Context
	client    feedv1.FeedServiceClient
	link      *lab.Link
	published atomic.Int64
	handlers  atomic.Int64 // that run
	left      atomic.Int64 // streams whose context has ended
}

// inLab runs body with a bench in virtual time, whose clients leave at its end.
func inLab(t *testing.T, put policy, size int, body func(*bench)) {
	lab.Run(t, func(l *lab.Lab) {
		b := &broker{put: put, size: size}
		newBench(l, b, b.watch, body)
	}, lab.Lasts(3*time.Hour))
}

func newBench(l *lab.Lab, br *broker, watch func(watchServer) error, body func(*bench), opts ...grpc.DialOption) {
	b := &bench{Lab: l, broker: br, link: l.NewLink()}
	b.link.Serve(&server{watch: func(stream watchServer) error {
		b.handlers.Add(1)
		defer b.handlers.Add(-1)
		context.AfterFunc(stream.Context(), func() { b.left.Add(1) })
		return watch(stream)
	}})
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

// sub returns the subscription that came as number i.
func (b *bench) sub(i int) *subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subs[i]
}

// holds returns the length of a subscription's queue, and how many
// subscriptions the broker knows.
func (b *bench) holds(s *subscription) (queue, known int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(s.queue), len(b.subs)
}

// publishing publishes n events in a goroutine, one each interval, and late
// ones at once, and then does what follows.
func (b *bench) publishing(n int, interval time.Duration, then func()) {
	began := time.Now()
	go func() {
		for i := range n {
			time.Sleep(time.Until(began.Add(time.Duration(i) * interval)))
			if b.ctx.Err() != nil {
				return
			}
			b.publish(event(i, 1024))
			b.published.Add(1)
		}
		then()
	}()
}

func nothing() {}

// A reading is what a client got.
type reading struct {
	mu     sync.Mutex
	bodies []int // the numbers of the events
	at     []time.Time
	err    error // nil as long as it reads
}

func (r *reading) n() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.bodies)
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
		i, _ := strconv.Atoi(strings.TrimSpace(ev.GetBody()))
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
	inLab(t, sendUnderLock, 0, func(b *bench) {
		first := b.goes(b.enter())
		stalled := b.enter()
		last := b.goes(b.enter())
		b.publishing(500, 10*time.Millisecond, nothing)
		time.Sleep(time.Hour)
		want := sends(kib)
		got := int(b.published.Load())
		if want != 128 || got != want || first.n() != want+1 || last.n() != want {
			b.Errorf("%d published, %d and %d read, want 128, 129 and 128", got, first.n(), last.n())
		}
		b.Logf("an hour later: 500 events were due, %d are published; the client before the stalled one has %d, the one behind it %d", got, first.n(), last.n())
		r := b.goes(stalled)
		time.Sleep(time.Minute)
		if b.published.Load() != 500 || first.n() != 500 || r.n() != 500 || last.n() != 500 {
			b.Errorf("%d published, the stalled client got %d, the others %d and %d, want 500", b.published.Load(), r.n(), first.n(), last.n())
		}
		b.Logf("it reads again, and all have all %d", last.n())
	})
}

// In real time: synctest does not count a goroutine that waits for a mutex as
// waiting, so virtual time would stand still.
func TestTheLockKeepsOutWhoComesAndWhoGoesOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		br := &broker{put: sendUnderLock}
		newBench(l, br, br.watch, func(b *bench) {
			until := func(true func() bool) {
				for !true() {
					time.Sleep(time.Millisecond)
				}
			}
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
			until(func() bool { return int(b.published.Load()) == sends(kib) })
			until(func() bool { // the next event has the lock
				free := b.mu.TryLock()
				if free {
					b.mu.Unlock()
				}
				return !free
			})
			leave()
			entered := make(chan struct{})
			go func() {
				defer close(entered)
				open(b.ctx, b.client) // fails if the test has failed
			}()
			// Three: the stalled one, the one that has left, the one that comes.
			until(func() bool { return b.left.Load() == 1 && b.handlers.Load() == 3 })
			select {
			case <-entered:
				b.Error("a client could subscribe while Send waited")
			case <-time.After(100 * time.Millisecond):
			}
			if n := b.handlers.Load(); n != 3 {
				b.Errorf("%d handlers run, want 3", n)
			}
			b.Logf("Send waits for one client: another one has left, and its handler runs; a third one comes, and is not let in; %d handlers", b.handlers.Load())
			cancel()
			stalled.Recv()
			<-entered
			until(func() bool { return b.handlers.Load() == 1 })
			b.Logf("the stalled client leaves, and so does the other one: %d handler", b.handlers.Load())
		})
	})
}

// 128 that Send takes, one with which it waits, and the queue.
func TestAQueueThatBlocksPutsItOff(t *testing.T) {
	for _, size := range []int{1, 32, 400} {
		inLab(t, waitForRoom, size, func(b *bench) {
			stalled := b.enter()
			b.publishing(600, 10*time.Millisecond, nothing)
			time.Sleep(time.Hour)
			got, want := int(b.published.Load()), sends(kib)+1+size
			if got != want {
				b.Errorf("queue of %d: %d published, want %d", size, got, want)
			}
			b.Logf("a queue of %3d: after %d events the publisher waits, an hour later, too", size, got)
			newcomer := b.enter() // the lock is free
			r, other := b.goes(stalled), b.goes(newcomer)
			time.Sleep(time.Minute)
			if r.n() != 600 || other.n() != 600-want-1 {
				b.Errorf("queue of %d: when all is over they have %d and %d, want 600 and %d", size, r.n(), other.n(), 600-want-1)
			}
		})
	}
}

// 250 events are published, one each 20 ms, to five clients on one connection, of
// which the third reads nothing for 9 s, until 4 s after the last one was due. Full
// seconds: how fast the backlog then goes over the connection is not the point.
func TestEachWayHasItsPrice(t *testing.T) {
	const n, size, every, stall = 250, 32, 20 * time.Millisecond, 9 * time.Second
	table := fmt.Sprintf("%-20s  %-19s  %-16s  %-8s  %s\n", "", "the four, after 9 s", "in the end, late", "queue of", "the stalled one got, and")
	for _, way := range ways {
		inLab(t, way.put, size, func(b *bench) {
			var readers []*reading
			var stalled watchClient
			for i := range 5 {
				if stream := b.enter(); i == 2 {
					stalled = stream
				} else {
					readers = append(readers, b.goes(stream))
				}
			}
			sub := b.sub(2)
			began := time.Now()
			b.publishing(n, every, b.close)
			time.Sleep(stall)
			queue := 0
			if b.mu.TryLock() { // Send under the lock holds it, and has no queue
				queue = len(sub.queue)
				b.mu.Unlock()
			}
			var have []int
			for _, r := range readers {
				have = append(have, r.n())
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
			end := r.end() // and the reading is over
			if first := r.bodies[:129]; !slices.IsSorted(first) || first[128] != 128 {
				b.Errorf("%s: the stalled client's first events are %v", way.name, first)
			}
			told := status.Code(end).String()
			if errors.Is(end, io.EOF) {
				told = "io.EOF"
			}
			row := fmt.Sprintf("%-20s  %-19s  %-16s  %-8d  %d, %s\n", way.name, strings.ReplaceAll(commas(slices.Compact(have)), ",", " or"), fmt.Sprintf("%d, %v", n, lag.Truncate(time.Second)), queue, r.n(), told)
			b.Log(strings.TrimSpace(row))
			table += row
		})
	}
	lab.Golden(t, "table.txt", table)
}

// An event is due each 40 ms, and a client stalls for a while. If it is
// disconnected it comes back at once; it is told nothing about what it missed.
func TestDropAndDisconnectLoseAlike(t *testing.T) {
	const size, every = 32, 40 * time.Millisecond
	lost := map[string][]int{}
	stalls := []int{0, 3, 6, 9, 12, 15}
	for _, way := range ways[3:] {
		for _, stall := range stalls {
			inLab(t, way.put, size, func(b *bench) {
				stream := b.enter()
				n := 25 * (stall + 1)
				b.publishing(n, every, b.close)
				time.Sleep(time.Duration(stall)*time.Second + 7*time.Millisecond)
				r := &reading{}
				r.readAll(stream)
				if status.Code(r.err) == codes.ResourceExhausted {
					r.readAll(b.enter())
				}
				if !errors.Is(r.err, io.EOF) {
					b.Errorf("%s, a stall of %d s: the end is %v", way.name, stall, r.err)
				}
				lost[way.name] = append(lost[way.name], n-r.n())
			})
		}
		t.Logf("%-10s lost after stalls of %v s: %v", way.name, stalls, lost[way.name])
	}
	for i, stall := range stalls {
		// One event is due at the start, and 25 in each second of the stall.
		over := max(0, 1+25*stall-sends(kib)-1-size)
		if drop, disconnect := lost["drop"][i], lost["disconnect"][i]; drop != over || disconnect != over+min(over, 1) {
			t.Errorf("a stall of %d s: %d lost by drop, %d by disconnect, want %d and, if there is any, one more", stall, drop, disconnect, over)
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
	inLab(t, coalesce, 32, func(b *bench) {
		stream := b.enter()
		b.publishing(300, 20*time.Millisecond, b.close)
		time.Sleep(10 * time.Second)
		r := b.goes(stream)
		time.Sleep(time.Minute)
		if !errors.Is(r.end(), io.EOF) {
			b.Fatalf("the client's stream ended with %v", r.end())
		}
		want := []int{290, 291, 292, 293, 294, 295, 296, 297, 298, 299}
		tail := slices.Sorted(slices.Values(r.bodies[129:]))
		if !slices.Equal(tail, want) || r.bodies[128] != 128 {
			b.Errorf("after %d the client got %v, want %v", r.bodies[128], tail, want)
		}
		b.Logf("the client got states 0 to %d, and then %v, of things 0 to 9", r.bodies[128], tail)
	})
}

func TestTheStatusComesAfterWhatWasQueued(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		inLab(t, disconnect, 32, func(b *bench) {
			ctx, leave := context.WithCancel(b.ctx)
			defer leave()
			stream, err := open(ctx, b.client)
			if err != nil {
				b.Fatal(err)
			}
			s := b.sub(0)
			b.publishing(300, 20*time.Millisecond, nothing)
			time.Sleep(time.Hour)
			queued, known := b.holds(s)
			if known != 0 || queued != 32 || b.handlers.Load() != 1 {
				b.Errorf("after an hour the broker knows %d subscriptions, %d handlers run, and %d events are queued, want 0, 1 and 32", known, b.handlers.Load(), queued)
			}
			b.Logf("an hour later the broker has forgotten the client; its handler still waits in Send, and its queue holds %d", queued)
			if leaves {
				leave()
				time.Sleep(time.Second)
				b.Logf("the client leaves, and %d handlers run", b.handlers.Load())
			} else {
				r := &reading{}
				r.readAll(stream)
				if r.n() != 161 || status.Code(r.err) != codes.ResourceExhausted {
					b.Errorf("the client got %d events and %v, want 161 and ResourceExhausted", r.n(), r.err)
				}
				b.Logf("the client reads again: %d events, and then %v", r.n(), r.err)
			}
			if n := b.handlers.Load(); n != 0 {
				b.Errorf("%d handlers run", n)
			}
		})
	}
}

// The handler sends from a goroutine, and returns when the subscription ends, even
// if that goroutine waits in Send: the return of the handler ends the stream's
// context, and that ends Send (internal/transport/http2_server.go, finishStream).
func TestAHandlerThatReturnsFreesItsSend(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		br := &broker{put: disconnect, size: 32}
		sender := make(chan error, 1) // how it ended
		watch := func(stream watchServer) error {
			s := br.subscribe(stream)
			go func() {
				for {
					ev, err := s.next()
					if err == nil {
						err = stream.Send(ev)
					}
					if err != nil {
						sender <- err
						return
					}
				}
			}()
			br.mu.Lock()
			defer br.mu.Unlock()
			for s.err == nil {
				s.changed.Wait()
			}
			return s.err
		}
		newBench(l, br, watch, func(b *bench) {
			stream := b.enter()
			b.publishing(300, 20*time.Millisecond, nothing)
			time.Sleep(time.Hour)
			if n := b.handlers.Load(); n != 0 || len(sender) != 1 {
				b.Fatalf("%d handlers run, and %d Sends have returned, want 0 and 1", n, len(sender))
			}
			err := <-sender
			if status.Code(err) != codes.Canceled {
				b.Errorf("the Send that waited returned %v, want Canceled", err)
			}
			b.Logf("an hour later no handler runs; the Send that waited returned %q", err)
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
		inLab(t, disconnect, size, func(b *bench) {
			r := b.goes(b.enter())
			for range 2 {
				b.publishing(burst, 0, nothing)
				time.Sleep(time.Minute)
			}
			want := codes.OK
			if size < burst {
				want = codes.ResourceExhausted
			}
			if got := status.Code(r.end()); got != want || want == codes.OK && r.n() != 2*burst {
				b.Errorf("queue of %d: the client got %d events and %v, want %v", size, r.n(), got, want)
			}
			b.Logf("two bursts of %d, and a client that reads at once; queue of %3d: %v", burst, size, want)
		})
	}
}

// The connection's window opens as data arrives, and not as it is read
// (internal/transport/http2_client.go, handleData). It is 1 MiB here, so that a
// quarter of it, which may be on its way back, is more than a stream can use.
func TestAStalledStreamStallsNoNeighbour(t *testing.T) {
	const window = 1 << 20
	took := map[int]time.Duration{}
	for _, stalled := range []int{0, 20} {
		lab.Run(t, func(l *lab.Lab) {
			br := &broker{put: grow}
			newBench(l, br, br.watch, func(b *bench) {
				for range stalled {
					b.enter()
				}
				for range 16 { // fills them
					b.publish(event(0, 16<<10))
				}
				time.Sleep(time.Minute)
				held, credit := map[uint32]int{}, map[uint32]int{}
				for _, f := range b.link.Frames() {
					switch n, _ := strconv.Atoi(f.Text); {
					case f.From == lab.Server && f.Type == "DATA":
						held[f.Stream] += f.Length
					case f.From == lab.Client && f.Type == "WINDOW_UPDATE":
						credit[f.Stream] += n
					}
				}
				for stream, n := range held {
					if n != lab.Window || credit[stream] != 0 {
						b.Errorf("the client holds %d B of the unread stream %d, want %d, and has given %d B of credit, want 0", n, stream, lab.Window, credit[stream])
					}
				}
				if all := stalled * lab.Window; len(held) != stalled || all > 0 && (all <= window || all-credit[0] >= window/4) {
					b.Errorf("%d streams have data, want %d; of %d B the connection's window of %d has %d back", len(held), stalled, all, window, credit[0])
				}
				r := b.goes(b.enter())
				began := time.Now()
				b.publishing(300, 0, nothing)
				time.Sleep(time.Minute)
				if r.n() != 300 {
					b.Fatalf("the reader got %d events", r.n())
				}
				took[stalled] = r.at[299].Sub(began)
				b.Logf("beside %2d stalled streams, of which the client holds %7d B, one that reads gets 300 events in %v", stalled, len(held)*lab.Window, took[stalled])
			}, grpc.WithStaticConnWindowSize(window))
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
		br := &broker{put: disconnect, size: 1}
		newBench(l, br, br.watch, func(b *bench) {
			stream := b.enter()
			s := b.sub(0)
			b.publish(&feedv1.Event{Id: "1", Body: large})
			time.Sleep(time.Second)
			b.link.Mark()
			began := time.Now()
			for i, note := range []string{"event 2: Send waits with it", "event 3: queued", "event 4: the queue is full; disconnected"} {
				time.Sleep(10 * time.Millisecond)
				b.publish(&feedv1.Event{Id: strconv.Itoa(i + 2)})
				b.link.Note(lab.Server, "%s", note)
				b.Settle() // the handler takes what it can
				if queued, known := b.holds(s); queued != min(i, 1) || known != []int{1, 1, 0}[i] {
					b.Errorf("after event %d the queue holds %d, and the broker knows %d clients", i+2, queued, known)
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
