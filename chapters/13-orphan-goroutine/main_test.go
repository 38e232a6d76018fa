package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const (
	beat = 15 * time.Second
	work = time.Millisecond // what render takes
)

// newServer is a server whose topic has n events and has ended. over ends the
// ticks of helpers that nothing else would end.
func newServer(n int, over context.Context, watch func(*server, watchServer) error) *server {
	return &server{
		watch:  watch,
		events: topic(n),
		beat:   beat,
		tick:   func(d time.Duration) <-chan time.Time { return ticks(over, d) },
		render: func(ctx context.Context, _ *feedv1.Event) error { return pause(ctx, work) },
	}
}

// sends notes what each Send of a handler returned, and when.
type sends struct {
	watchServer
	note func(ev *feedv1.Event, err error)
}

func (s sends) Send(ev *feedv1.Event) error {
	err := s.watchServer.Send(ev)
	s.note(ev, err)
	return err
}

// noted lets a handler run on a stream whose Sends are noted.
func noted(watch func(*server, watchServer) error, note func(ev *feedv1.Event, err error)) func(*server, watchServer) error {
	return func(s *server, stream watchServer) error { return watch(s, sends{stream, note}) }
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(newServer(3, l.Context(), func(s *server, stream watchServer) error {
			err := s.watchLeavingAQueue(sends{stream, func(ev *feedv1.Event, err error) {
				link.Note(lab.Server, "helper: Send of event %s returns %v", ev.GetId(), status.Code(err))
			}})
			link.Note(lab.Server, "the queue has all 3 events, the handler returns %v", err)
			return err
		}))
		ids, err := collect(l.Context(), feedv1.NewFeedServiceClient(link.Dial()))
		link.Note(lab.Client, "Recv: io.EOF, code %v, %d events", status.Code(err), len(ids))
		time.Sleep(time.Second)
		lab.Golden(t, "wire.txt", link.Ladder())
	})
}

func TestTheHelperOutlivesItsHandler(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		over, end := context.WithCancel(context.Background())
		defer end()
		client, _ := l.Connect(newServer(3, over, (*server).watchLeavingAHeart))
		ids, err := collect(l.Context(), client)
		if err != nil || len(ids) != 3 {
			l.Fatalf("the client got %q and %v, want all events and no error", ids, err)
		}
		time.Sleep(time.Hour)
		if left := orphans(); left != 1 {
			l.Errorf("an hour after the handler's return %d helpers are there, want 1", left)
		}
		l.Logf("the handler returned nil, the client has %d events and OK, and an hour later the helper beats", len(ids))
		end()
	}, lab.Lasts(2*time.Hour))
}

// orphans counts the goroutines that run code of a handler: none where no
// handler runs and nothing was left.
func orphans() (n int) {
	buf := make([]byte, 8<<20)
	for entry := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(entry, "(*server).watch") {
			n++
		}
	}
	return n
}

func TestASendAfterTheReturnIsCanceled(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		over, end := context.WithCancel(context.Background())
		defer end()
		var codesSeen sync.Map
		var late atomic.Int32
		link := l.NewLink()
		link.Serve(newServer(0, over, noted((*server).watchLeavingAHeart, func(_ *feedv1.Event, err error) {
			late.Add(1)
			codesSeen.Store(status.Code(err), true)
		})))
		client := feedv1.NewFeedServiceClient(link.Dial())
		if _, err := collect(l.Context(), client); err != nil {
			l.Fatal(err)
		}
		link.Mark()
		time.Sleep(20 * time.Minute)
		if n, frames := late.Load(), link.Frames(); n != 80 || len(frames) != 0 {
			l.Errorf("in 20 minutes the helper called Send %d times and %d frames were sent, want 80 and none", n, len(frames))
		}
		for code := range codesSeen.Range {
			if code != codes.Canceled {
				l.Errorf("a Send after the return returned %v, want Canceled", code)
			}
		}
		l.Logf("%d Sends in 20 minutes, all Canceled, no frame on the wire, no panic", late.Load())
		end()
	}, lab.Lasts(time.Hour))
}

// A late Send returns what the stream's context says, and without the
// connection Unavailable (streamContextErr in http2_server.go).
func TestALateSendTellsWhatEndedTheStream(t *testing.T) {
	for _, tt := range []struct {
		what string
		end  func(*grpc.ClientConn)
		want []codes.Code
	}{
		// The client's reset and two timers of the server tie at a deadline.
		{"the deadline passed", func(*grpc.ClientConn) {}, []codes.Code{codes.Canceled, codes.DeadlineExceeded}},
		{"the connection was closed", func(conn *grpc.ClientConn) { conn.Close() }, []codes.Code{codes.Unavailable}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			over, end := context.WithCancel(context.Background())
			defer end()
			said := make(chan codes.Code, 1)
			s := newServer(0, over, noted((*server).watchLeavingAHeart, func(_ *feedv1.Event, err error) { said <- status.Code(err) }))
			s.events = make(chan *feedv1.Event) // silent
			link := l.NewLink()
			link.Serve(s)
			conn := link.Dial()
			ctx, cancel := context.WithTimeout(l.Context(), 10*time.Second)
			defer cancel()
			if _, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{}); err != nil {
				l.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			tt.end(conn)
			time.Sleep(beat) // the first heartbeat is sent when the handler has returned
			got := <-said
			if !slices.Contains(tt.want, got) {
				l.Errorf("%s: a Send after the return returned %v, want one of %v", tt.what, got, tt.want)
			}
			l.Logf("%s: a Send after the return returned %v", tt.what, got)
			end()
		})
	}
}

// Ten events, one queue, and a helper that needs a millisecond for each.
func TestWhatTheHelperStillHoldsIsLost(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var handler error
		var lost atomic.Int32
		client, _ := l.Connect(newServer(10, l.Context(), func(s *server, stream watchServer) error {
			handler = s.watchLeavingAQueue(sends{stream, func(_ *feedv1.Event, err error) {
				if status.Code(err) == codes.Canceled {
					lost.Add(1)
				}
			}})
			return handler
		}))
		ids, err := collect(l.Context(), client)
		time.Sleep(time.Second)
		if len(ids) != 0 || err != nil || handler != nil || lost.Load() != 10 {
			l.Errorf("the client got %d events and %v, the handler returned %v, %d Sends were Canceled, want 0, nil, nil, 10", len(ids), err, handler, lost.Load())
		}
		l.Logf("10 events, the client got %d and OK, the handler returned nil, the helper's %d Sends said Canceled to nobody", len(ids), lost.Load())
	})
}

// An event each millisecond, no rendering, and a client that reads a second
// later: its window and the server's quota take 131 events of 1,008 B.
func TestTheReturnCutsOffASendThatWaits(t *testing.T) {
	for _, tt := range []struct {
		what  string
		watch func(*server, watchServer) error
		sent  int
	}{{"left alone", (*server).watchLeavingAQueue, 131}, {"joined", (*server).watchJoined, 140}} {
		lab.Run(t, func(l *lab.Lab) {
			events := make(chan *feedv1.Event)
			s := newServer(0, l.Context(), nil)
			s.events, s.render = events, func(context.Context, *feedv1.Event) error { return nil }
			var sent, canceled atomic.Int32
			var returned, failed atomic.Int64 // when, in ns of this test
			s.watch = func(s *server, stream watchServer) error {
				defer func() { returned.Store(int64(l.Elapsed())) }()
				return tt.watch(s, sends{stream, func(_ *feedv1.Event, err error) {
					if err == nil {
						sent.Add(1)
					} else if canceled.Add(1) == 1 {
						failed.Store(int64(l.Elapsed()))
					}
				}})
			}
			client, _ := l.Connect(s)
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{})
			if err != nil {
				l.Fatal(err)
			}
			for range 140 {
				time.Sleep(time.Millisecond)
				events <- &feedv1.Event{Body: strings.Repeat("x", 1000)} // 1,008 B with its frame
			}
			close(events)
			time.Sleep(time.Second)
			waits, got := returned.Load() == 0, 0
			for err == nil {
				if _, err = stream.Recv(); err == nil {
					got++
				}
			}
			if got != tt.sent || !errors.Is(err, io.EOF) || int(sent.Load()) != tt.sent || int(canceled.Load()) != 140-tt.sent || waits != (tt.sent == 140) {
				l.Errorf("%s: of 140 events %d were sent and %d Canceled, the client got %d and %v, the handler waited for it: %v", tt.what, sent.Load(), canceled.Load(), got, err, waits)
			}
			if tt.sent < 140 && failed.Load() != returned.Load() {
				l.Errorf("%s: the Send that waited failed %v after the return, want at once", tt.what, time.Duration(failed.Load()-returned.Load()))
			}
			l.Logf("%s: of 140 events the client got %d and %v; the handler waited for it: %v", tt.what, got, err, waits)
		})
	}
}

// A helper that leaves when Send fails: it has to send first.
func TestHeedingSendsErrorEndsTheHelperABeatLate(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var returned time.Time
		ended := make(chan time.Time)
		client, _ := l.Connect(newServer(3, nil, func(s *server, stream watchServer) error {
			go func() {
				for range time.Tick(s.beat) {
					if stream.Send(heartbeat()) != nil {
						ended <- time.Now()
						return
					}
				}
			}()
			time.Sleep(20 * time.Second) // one heartbeat goes through
			returned = time.Now()
			return nil
		}))
		if _, err := collect(l.Context(), client); err != nil {
			l.Fatal(err)
		}
		late := (<-ended).Sub(returned)
		if late != 10*time.Second {
			l.Errorf("the helper ended %v after the handler, want 10s", late)
		}
		l.Logf("beats at 15s and 30s, return at 20s: the helper ended %v after the handler", late)
	})
}

// The stream's context ends with the return, which stops a helper that waits
// for it. It is not joined: what it does at that moment it does after the
// return.
func TestStoppedIsNotJoined(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var returned, stopped, done time.Time
		over := make(chan bool)
		client, _ := l.Connect(newServer(0, nil, func(s *server, stream watchServer) error {
			go func() {
				<-stream.Context().Done()
				stopped = time.Now()
				time.Sleep(time.Second) // the last thing that it does
				done = time.Now()
				close(over)
			}()
			time.Sleep(time.Minute)
			returned = time.Now()
			return nil
		}))
		if _, err := collect(l.Context(), client); err != nil {
			l.Fatal(err)
		}
		ended := time.Now()
		<-over
		if stopped != returned || done.Sub(returned) != time.Second || !done.After(ended) {
			l.Errorf("the helper was stopped %v and done %v after the return, want 0s and 1s", stopped.Sub(returned), done.Sub(returned))
		}
		l.Logf("stopped %v and done %v after the return: %v after the client had its OK", stopped.Sub(returned), done.Sub(returned), done.Sub(ended))
	})
}

// clients lets n clients collect, one after the other.
func clients(l *lab.Lab, client feedv1.FeedServiceClient, n int) {
	l.Helper()
	for range n {
		if _, err := collect(l.Context(), client); err != nil {
			l.Fatal(err)
		}
	}
}

func TestAThousandClientsLeaveAThousandHelpers(t *testing.T) {
	var left, joined []int
	for _, tt := range []struct {
		watch func(*server, watchServer) error
		left  *[]int
	}{{(*server).watchLeavingAHeart, &left}, {(*server).watchJoined, &joined}} {
		lab.Run(t, func(l *lab.Lab) {
			over, end := context.WithCancel(context.Background())
			defer end()
			beats := make(chan time.Time) // one that never beats, for all
			s := newServer(0, over, tt.watch)
			s.tick = func(time.Duration) <-chan time.Time { return beats }
			client, _ := l.Connect(s)
			heap := heapBytes()
			for range 6 {
				time.Sleep(time.Second)
				*tt.left = append(*tt.left, orphans())
				if len(*tt.left) < 6 {
					clients(l, client, 200)
				}
			}
			per := (heapBytes() - heap) / 1000
			if (*tt.left)[5] > 0 && (per < 1_000 || per > 10_000) {
				l.Errorf("each client left %d B, want 1,000 to 10,000", per)
			}
			l.Logf("after 0, 200, … 1,000 clients: %d helpers are left, %d B of heap a client", *tt.left, per)
			close(beats)
		})
	}
	if want := []int{0, 200, 400, 600, 800, 1000}; !slices.Equal(left, want) {
		t.Errorf("%d helpers were left behind, want %d", left, want)
	}
	if want := make([]int, 6); !slices.Equal(joined, want) {
		t.Errorf("%d joined helpers were left behind, want none", joined)
	}
	lab.Golden(t, "growth.mmd", fmt.Sprintf(`xychart-beta
    title "Goroutines that are left on the server"
    x-axis "clients that came and went" [0, 200, 400, 600, 800, 1000]
    y-axis "goroutines" 0 --> 1000
    line "left" %s
    line "joined" %s
`, list(left), list(joined)))
}

func list(numbers []int) string { return strings.ReplaceAll(fmt.Sprint(numbers), " ", ", ") }

// heapBytes is what is in use after a collection, stacks included.
func heapBytes() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// Closing and stopping end connections and streams. A helper is neither.
func TestClosingAndStoppingDoNotEndHelpers(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		over, end := context.WithCancel(context.Background())
		defer end()
		link := l.NewLink()
		srv := link.Serve(newServer(3, over, (*server).watchLeavingAHeart), grpc.WaitForHandlers(true))
		conn := link.Dial()
		if _, err := collect(l.Context(), feedv1.NewFeedServiceClient(conn)); err != nil {
			l.Fatal(err)
		}
		start := time.Now()
		srv.GracefulStop() // waits for handlers
		srv.Stop()         // WaitForHandlers: so does this
		took := time.Since(start)
		conn.Close()
		time.Sleep(time.Second)
		if left := orphans(); left != 1 || took > time.Second {
			l.Errorf("GracefulStop and Stop took %v, and %d helpers are there, want 1 and under 1s", took, left)
		}
		l.Logf("GracefulStop and Stop returned after %v; the helper is there when server and connection are gone", took)
		end()
	})
}

// goleak names what the goroutine waits for, its function and, in the last
// line, who started it. Addresses and folders are left out here.
func TestGoleakNamesTheHelper(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		found, before := false, goleak.IgnoreCurrent()
		over, end := context.WithCancel(context.Background())
		defer end()
		link := l.NewLink()
		srv := link.Serve(newServer(3, over, (*server).watchLeavingAHeart))
		conn := link.Dial()
		if _, err := collect(l.Context(), feedv1.NewFeedServiceClient(conn)); err != nil {
			l.Fatal(err)
		}
		conn.Close()
		srv.Stop()
		for _, entry := range lab.Goleak(before) {
			if strings.Contains(entry, "watchLeavingAHeart.func1") {
				lab.Golden(t, "goleak.txt", entry+"\n")
				found = true
			}
		}
		if !found {
			l.Error("goleak does not find the helper")
		}
		end()
	})
}

// What watchLeavingAQueue loses, watchJoined delivers: it returns later.
func TestAJoinedHandlerReturnsAfterItsHelper(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(newServer(10, l.Context(), (*server).watchJoined))
		start := time.Now()
		ids, err := collect(l.Context(), client)
		if took := time.Since(start); len(ids) != 10 || err != nil || took != 2*lab.Latency+10*work {
			l.Errorf("the client got %d events and %v after %v, want 10, nil, a round trip and 10 ms", len(ids), err, took)
		}
		l.Logf("%d of 10 events and OK after %v: a round trip, and 1 ms for each", len(ids), time.Since(start))
	})
}

func TestAJoinedHelpersErrorIsTheStatus(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		for name, watch := range map[string]func(*server, watchServer) error{
			"joined": (*server).watchJoined, "left": (*server).watchLeavingAQueue,
		} {
			s := newServer(3, l.Context(), watch)
			s.render = func(_ context.Context, ev *feedv1.Event) error {
				if ev.GetId() == "2" {
					return status.Error(codes.DataLoss, "event 2 cannot be read")
				}
				return nil
			}
			client, _ := l.Connect(s)
			ids, err := collect(l.Context(), client)
			if name == "joined" && (len(ids) != 1 || status.Code(err) != codes.DataLoss) {
				l.Errorf("joined: the client got %q and %v, want one event and DataLoss", ids, err)
			}
			if name == "left" && err != nil {
				l.Errorf("left: the client got %v, want no error", err)
			}
			l.Logf("%s: code %v", name, status.Code(err))
		}
	})
}

func TestHandlersThatLeaveNothingEndWithTheirClient(t *testing.T) {
	for name, watch := range map[string]func(*server, watchServer) error{
		"joined": (*server).watchJoined, "alone": (*server).watchAlone,
	} {
		t.Run(name, func(t *testing.T) {
			lab.Run(t, func(l *lab.Lab) {
				returned := make(chan time.Time, 1)
				s := newServer(0, l.Context(), func(s *server, stream watchServer) error {
					defer func() { returned <- time.Now() }()
					return watch(s, stream)
				})
				s.events = make(chan *feedv1.Event) // silent
				client, _ := l.Connect(s)
				ctx, cancel := context.WithTimeout(l.Context(), time.Hour)
				defer cancel()
				var left time.Time
				time.AfterFunc(90*time.Second, func() { left = time.Now(); cancel() })
				if _, err := collect(ctx, client); status.Code(err) != codes.Canceled {
					l.Errorf("the client got %v, want Canceled", err)
				}
				if late := (<-returned).Sub(left); late != lab.Latency {
					l.Errorf("the handler returned %v after the cancel, want %v", late, lab.Latency)
				}
				l.Logf("the handler returned %v after the cancel", lab.Latency)
			})
		})
	}
}

// Events at 0, 10 and 20 s, then silence: heartbeats at 35 and 50 s.
func TestOneLoopSendsEventsAndHeartbeats(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		events := make(chan *feedv1.Event)
		s := newServer(0, l.Context(), nil)
		s.events = events
		start := time.Now()
		var got []string
		s.watch = noted((*server).watchAlone, func(ev *feedv1.Event, err error) {
			got = append(got, fmt.Sprintf("%v %s%s", time.Since(start), ev.GetId(), ev.GetBody()))
		})
		go func() {
			defer close(events)
			time.Sleep(time.Second)
			start = time.Now()
			for i := range 3 {
				events <- &feedv1.Event{Id: fmt.Sprint(i)}
				time.Sleep(10 * time.Second)
			}
			time.Sleep(25 * time.Second)
		}()
		client, _ := l.Connect(s)
		if _, err := collect(l.Context(), client); err != nil {
			l.Fatal(err)
		}
		if want := []string{"0s 0", "10s 1", "20s 2", "35s heartbeat", "50s heartbeat"}; !slices.Equal(got, want) {
			l.Errorf("the loop sent %q, want %q", got, want)
		}
		l.Logf("sent %q", got)
	})
}
