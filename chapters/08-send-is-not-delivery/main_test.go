package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

type ingestClient = grpc.BidiStreamingClient[feedv1.Event, feedv1.Ack]

// A peer is a feed whose Ingest is a function of the test.
type peer struct {
	feedv1.UnimplementedFeedServiceServer
	ingest func(ingestServer) error
}

func (p peer) Ingest(stream ingestServer) error { return p.ingest(stream) }

// readOne reads one event and returns OK.
func readOne(stream ingestServer) error {
	_, err := stream.Recv()
	return err
}

// into stores in s; an insert takes a while.
func into(s *store, takes time.Duration) *server {
	return &server{insert: func(ctx context.Context, ev *feedv1.Event) error {
		time.Sleep(takes)
		return s.insert(ctx, ev)
	}}
}

// large is how many bytes of a stream an event or an ack of one KiB takes: the
// message and gRPC's 5 bytes before it.
const large = 1032

func largeEvents(n int) []*feedv1.Event {
	events := numbered(10_001, 10_000+n) // ids of one length
	for _, ev := range events {
		ev.Body = strings.Repeat("x", large-5-proto.Size(ev)-3)
	}
	return events
}

// open opens a stream that ends with the test.
func open(l *lab.Lab, client feedv1.FeedServiceClient) (ingestClient, context.CancelFunc) {
	l.Helper()
	ctx, cancel := context.WithCancel(l.Context())
	stream, err := client.Ingest(ctx)
	if err != nil {
		l.Fatal(err)
	}
	return stream, cancel
}

// drain counts what Recv returns before its error.
func drain[T any](stream interface{ Recv() (T, error) }) (n int, err error) {
	for ; ; n++ {
		if _, err = stream.Recv(); err != nil {
			return n, err
		}
	}
}

// sent sums the DATA that one side put on the wire.
func sent(link *lab.Link, side lab.Side) (bytes int) {
	for _, f := range link.Frames() {
		if f.From == side && f.Type == "DATA" {
			bytes += f.Length
		}
	}
	return bytes
}

// pacedClient lets each Send take a while, and counts those that return nil.
type pacedClient struct {
	feedv1.FeedServiceClient
	takes time.Duration
	sent  *int
}

func (c pacedClient) Ingest(ctx context.Context, opts ...grpc.CallOption) (ingestClient, error) {
	stream, err := c.FeedServiceClient.Ingest(ctx, opts...)
	return pacedStream{stream, c}, err
}

type pacedStream struct {
	ingestClient
	c pacedClient
}

func (s pacedStream) Send(ev *feedv1.Event) error {
	err := s.ingestClient.Send(ev)
	if err == nil {
		*s.c.sent++
	}
	time.Sleep(s.c.takes)
	return err
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows: one event has its ack, one is stored
// and its ack is on the way, one is on the way itself when the connection breaks.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var s store
		link := l.NewLink()
		link.Serve(&server{insert: func(ctx context.Context, ev *feedv1.Event) error {
			time.Sleep(time.Millisecond)
			link.Note(lab.Server, "stored: %s", ev.GetId())
			return s.insert(ctx, ev)
		}})
		client := pacedClient{feedv1.NewFeedServiceClient(link.Dial()), 4 * time.Millisecond, new(int)}
		time.AfterFunc(12500*time.Microsecond, func() {
			link.Note(lab.Client, "the connection breaks")
			link.Cut()
		})
		acked, err := ingest(l.Context(), client, numbered(1, 3))
		link.Note(lab.Client, "Send returned nil %d times; ingest returns %q, code %v", *client.sent, acked, status.Code(err))
		if stored, _ := s.count(); stored != 2 || len(acked) != 1 || *client.sent != 3 {
			l.Errorf("%d Sends, %d stored, %d acks, want 3, 2 and 1", *client.sent, stored, len(acked))
		}
		lab.Golden(t, "wire.txt", link.Ladder())
	})
}

func TestSendReturnsNilForWhatNobodyReads(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events []*feedv1.Event
		takes  time.Duration // from one Send to the next
		sends  int           // that return nil
		wire   int           // bytes that leave the client
	}{
		{"one a millisecond", numbered(101, 200), time.Millisecond, 11, 11 * 18},
		{"1000 at once", numbered(1001, 2000), 0, 1000, 1000 * 19},
		{"1000 of 1 KiB at once", largeEvents(1000), 0, 128, lab.Window},
	} {
		lab.Run(t, func(l *lab.Lab) {
			returned := make(chan time.Time, 1)
			client, link := l.Connect(peer{ingest: func(stream ingestServer) error {
				defer func() { returned <- time.Now() }()
				return readOne(stream)
			}})
			stream, cancel := open(l, client)
			defer cancel()
			start, nils, late := time.Now(), 0, 0
			var err error
			for _, ev := range tt.events {
				if err = stream.Send(ev); err != nil {
					break
				}
				nils++
				late += len(returned)
				time.Sleep(tt.takes)
			}
			_, status := stream.Recv()
			if bytes := sent(link, lab.Client); nils != tt.sends || status != io.EOF || bytes != tt.wire {
				l.Errorf("%s: %d Sends returned nil, the stream ended with %v, %d B left, want %d, EOF and %d",
					tt.name, nils, status, bytes, tt.sends, tt.wire)
			}
			if tt.takes > 0 && late != 5 {
				l.Errorf("%d Sends returned nil after the handler had returned, want 5", late)
			}
			l.Logf("%s: 1 event read, %d Sends returned nil, %d of them after the handler's return at %v (then %v); %d B left; status OK",
				tt.name, nils, late, (<-returned).Sub(start), err, sent(link, lab.Client))
		})
	}
}

func TestSendReturnsNilIntoABlackHole(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var up, down, failed atomic.Int32 // Sends that returned nil, and those that did not
		arrived := make(chan bool, 1000)
		client, link := l.Connect(peer{ingest: func(stream ingestServer) error {
			go func() {
				for {
					if _, err := stream.Recv(); err != nil {
						return
					}
					arrived <- true
				}
			}()
			time.Sleep(time.Second) // the link is a black hole
			for stream.Send(&feedv1.Ack{Id: strings.Repeat("x", 1024)}) == nil {
				down.Add(1)
			}
			failed.Add(1)
			return nil
		}})
		stream, cancel := open(l, client)
		defer cancel()
		time.Sleep(500 * time.Millisecond)
		link.Blackhole()
		go func() {
			for _, ev := range largeEvents(1000) {
				if stream.Send(ev) != nil {
					failed.Add(1)
					return
				}
				up.Add(1)
			}
		}()
		time.Sleep(time.Hour)
		saw := fmt.Sprintf("Sends that returned nil: %d of the client, %d of the server; that failed: %d; events that arrived: %d",
			up.Load(), down.Load(), failed.Load(), len(arrived))
		if want := "Sends that returned nil: 128 of the client, 128 of the server; that failed: 0; events that arrived: 0"; saw != want {
			l.Errorf("after an hour %s, want %s", saw, want)
		}
		l.Logf("after an hour in a black hole %s", saw)
		link.Heal()
	}, lab.Lasts(2*time.Hour))
}

func TestTheServersSendReturnsNilToo(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ack   *feedv1.Ack
		sends int
		done  bool // the handler returned, an hour before the client left
	}{
		{"small", &feedv1.Ack{Id: "1234"}, 1000, true},
		{"1 KiB", &feedv1.Ack{Id: strings.Repeat("x", 1024)}, 128, false},
	} {
		lab.Run(t, func(l *lab.Lab) {
			var nils atomic.Int32
			returned := make(chan error, 1)
			client, _ := l.Connect(peer{ingest: func(stream ingestServer) (err error) {
				defer func() { returned <- err }()
				for range 1000 {
					if err := stream.Send(tt.ack); err != nil {
						return err
					}
					nils.Add(1)
				}
				return nil
			}})
			_, cancel := open(l, client)
			time.Sleep(time.Hour) // without one Recv
			if int(nils.Load()) != tt.sends || len(returned) == 1 != tt.done {
				l.Errorf("%s: %d Sends returned nil, the handler returned: %v, want %d and %v", tt.name, nils.Load(), len(returned) == 1, tt.sends, tt.done)
			}
			l.Logf("%s: %d of the server's Sends returned nil; Recv was never called; the handler returned: %v", tt.name, nils.Load(), len(returned) == 1)
			cancel()
			if err := <-returned; tt.done != (err == nil) {
				l.Errorf("%s: the handler returned %v", tt.name, err)
			}
		}, lab.Lasts(2*time.Hour))
	}
}

// What is lost is up to chance: the events have arrived with the reset, and
// with both a message and an ended context before it the server's Recv picks
// at random (internal/transport/transport.go, (*recvBufferReader).read). The
// insert of 10 ms lets the reset in before the second Recv.
func TestACancelAfterTheLastSendLosesEvents(t *testing.T) {
	const runs = 100
	var kept []int
	for range runs {
		lab.Run(t, func(l *lab.Lab) {
			var s store
			client, link := l.Connect(into(&s, 10*time.Millisecond))
			sends, err := ingestCountingSends(l.Context(), client, numbered(1, 100))
			time.Sleep(2 * time.Second) // the handler has ended
			if len(sends) != 100 || err != nil {
				l.Errorf("ingestCountingSends returned %d ids and %v, want 100 and no error", len(sends), err)
			}
			var wire []string // the client's frames, in order
			for _, f := range link.Frames() {
				if f.From == lab.Client {
					wire = append(wire, f.Type)
				}
			}
			if n := len(wire); n != 103 || wire[0] != "HEADERS" || wire[n-1] != "RST_STREAM" {
				l.Errorf("the client sent %q, want HEADERS, DATA for 100 events and the half-close, and RST_STREAM", wire)
			}
			stored, _ := s.count()
			kept = append(kept, stored)
		})
	}
	slices.Sort(kept)
	if most := kept[len(kept)-1]; most >= 100 {
		t.Errorf("a run stored %d of 100 events, want fewer", most)
	}
	t.Logf("reported as delivered: 100 each time; stored in %d runs: %d to %d, median %d", runs, kept[0], kept[len(kept)-1], kept[len(kept)/2])
}

// What is certain: beyond the window nothing has left, and a cancel drops the
// queue (internal/transport/controlbuf.go, cleanupStreamHandler).
func TestACancelDropsWhatIsQueued(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var s store
		client, link := l.Connect(into(&s, 10*time.Millisecond))
		sends, err := ingestCountingSends(l.Context(), client, largeEvents(128))
		time.Sleep(2 * time.Second)
		stored, _ := s.count()
		left := sent(link, lab.Client)
		if len(sends) != 128 || err != nil || left != lab.Window || stored > left/large {
			l.Errorf("%d Sends, %v, %d B left, %d stored, want 128, no error, %d B and at most %d stored",
				len(sends), err, left, stored, lab.Window, lab.Window/large)
		}
		l.Logf("reported as delivered: %d; %d whole events left the client, %d never did", len(sends), left/large, 128-left/large)
	})
}

func TestTheHalfCloseLosesNothing(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var read atomic.Int32
		client, _ := l.Connect(peer{ingest: func(stream ingestServer) error {
			n, err := drain(stream)
			read.Store(int32(n))
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}})
		stream, cancel := open(l, client)
		defer cancel()
		for _, ev := range largeEvents(10_000) {
			if err := stream.Send(ev); err != nil {
				l.Fatal(err)
			}
		}
		stream.CloseSend()
		_, err := stream.Recv()
		if read.Load() != 10_000 || err != io.EOF {
			l.Errorf("the server read %d events, and the stream ended with %v, want 10000 and EOF", read.Load(), err)
		}
		l.Logf("10000 Sends, CloseSend, %v from Recv: the server read %d", err, read.Load())
	})
}

func TestOKIsNoAckForTheRest(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(peer{ingest: func(stream ingestServer) error {
			ev, err := stream.Recv()
			if err != nil {
				return err
			}
			return stream.Send(&feedv1.Ack{Id: ev.GetId()}) // and OK: the shard moved, the quota is used up
		}})
		for _, f := range []func(context.Context, feedv1.FeedServiceClient, []*feedv1.Event) ([]string, error){ingest, ingestInLockStep} {
			acked, err := f(l.Context(), client, numbered(1, 100))
			if status := l.RPCs()[len(l.RPCs())-1].Err; len(acked) != 1 || !errors.Is(err, errUnacked) || status != nil {
				l.Errorf("%q, %v and the status was %v, want one ack, errUnacked and OK", acked, err, status)
			}
			l.Logf("100 to send, 1 acknowledged, status OK; %v", err)
		}
	})
}

// The acks take 103,200 B and the client's window 65,535: the status waits
// behind the rest (internal/transport/http2_server.go, writeStatus queues the
// trailers as one more item).
func TestTheHandlersReturnIsNotTheEndOfTheStream(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		returned := make(chan bool)
		link := l.NewLink()
		srv := link.Serve(peer{ingest: func(stream ingestServer) error {
			defer close(returned)
			for range 100 {
				if err := stream.Send(&feedv1.Ack{Id: strings.Repeat("x", 1024)}); err != nil {
					return err
				}
			}
			return nil
		}})
		stream, cancel := open(l, feedv1.NewFeedServiceClient(link.Dial()))
		defer cancel()
		<-returned
		stopped := make(chan time.Time, 1)
		go func() { srv.GracefulStop(); stopped <- time.Now() }()
		time.Sleep(time.Hour)
		if bytes := sent(link, lab.Server); len(stopped) != 0 || bytes != lab.Window {
			l.Errorf("an hour after the handler's return %d B have left and GracefulStop returned: %v, want %d B and false", bytes, len(stopped) == 1, lab.Window)
		}
		start := time.Now()
		acks, _ := drain(stream)
		ended, stop := time.Since(start), (<-stopped).Sub(start)
		if acks != 100 || ended != 2*lab.Latency || stop != 3*lab.Latency {
			l.Errorf("the client received %d acks, its stream ended after %v, GracefulStop returned after %v, want 100, %v and %v",
				acks, ended, stop, 2*lab.Latency, 3*lab.Latency)
		}
		l.Logf("an hour after the return GracefulStop still waits; the client reads, its stream ends after %v, GracefulStop returns after %v", ended, stop)
	}, lab.Lasts(2*time.Hour))
}

// One event a millisecond, an insert takes 0.3 ms. Whenever the connection
// breaks, an event that has its ack is stored, and the latest ones that are
// stored have none.
func TestAnAckProvesThatTheEventIsStored(t *testing.T) {
	series := map[string][]int{}
	var at []int
	for ms := 0; ms <= 32; ms += 2 {
		at = append(at, ms)
		lab.Run(t, func(l *lab.Lab) {
			var s store
			svc := into(&s, 300*time.Microsecond)
			client, link := l.Connect(peer{ingest: func(stream ingestServer) error {
				return svc.Ingest(storedFirst{stream, l, &s})
			}})
			paced := pacedClient{client, time.Millisecond, new(int)}
			time.AfterFunc(time.Duration(ms)*time.Millisecond+50*time.Microsecond, link.Cut)
			acked, err := ingest(l.Context(), paced, numbered(1, 20))
			time.Sleep(time.Second) // the handler has ended
			for _, id := range acked {
				if !s.ids[id] {
					l.Errorf("cut after %d ms: event %s has an ack and is not stored", ms, id)
				}
			}
			if len(acked) < 20 && status.Code(err) != codes.Unavailable {
				l.Errorf("cut after %d ms: ingest returned %d acks and %v, want Unavailable", ms, len(acked), err)
			}
			stored, _ := s.count()
			for name, n := range map[string]int{"sent": *paced.sent, "stored": stored, "acked": len(acked)} {
				series[name] = append(series[name], n)
			}
		})
	}
	for i, ms := range at {
		if sent, stored, acked := series["sent"][i], series["stored"][i], series["acked"][i]; sent < stored || stored < acked {
			t.Errorf("cut after %d ms: %d Sends returned nil, %d stored, %d acks", ms, sent, stored, acked)
		}
	}
	commas := func(all []int) string { return strings.ReplaceAll(strings.Trim(fmt.Sprint(all), "[]"), " ", ", ") }
	chart := "xychart-beta\n    x-axis \"the connection breaks after (ms)\" [" + commas(at) + "]\n    y-axis \"events\" 0 --> 20\n"
	for _, name := range []string{"sent", "stored", "acked"} {
		chart += "    line [" + commas(series[name]) + "]\n"
		t.Logf("%6s %s", name, commas(series[name]))
	}
	lab.Golden(t, "cut.mmd", chart)
}

// storedFirst sees to it that an ack leaves when its event is stored.
type storedFirst struct {
	ingestServer
	l *lab.Lab
	s *store
}

func (s storedFirst) Send(ack *feedv1.Ack) error {
	if !s.s.ids[ack.GetId()] { // the handler is the only one that inserts
		s.l.Errorf("the ack of %s leaves, and the event is not stored", ack.GetId())
	}
	return s.ingestServer.Send(ack)
}

func TestAMissingAckProvesNothing(t *testing.T) {
	var errs []string
	for _, tt := range []struct {
		when   time.Duration
		stored int
	}{
		{lab.Latency / 2, 0},             // the event is on the way
		{lab.Latency + lab.Latency/2, 1}, // the ack is
	} {
		lab.Run(t, func(l *lab.Lab) {
			var s store
			client, link := l.Connect(into(&s, 0))
			time.AfterFunc(tt.when, link.Cut)
			acked, err := ingest(l.Context(), client, numbered(1, 1))
			stored, _ := s.count()
			if len(acked) != 0 || stored != tt.stored {
				l.Errorf("cut after %v: %d acks, %d stored, want 0 and %d", tt.when, len(acked), stored, tt.stored)
			}
			errs = append(errs, fmt.Sprint(err))
			l.Logf("cut after %v: stored %d, acks %d, %v", tt.when, stored, len(acked), err)
		})
	}
	if errs[0] != errs[1] {
		t.Errorf("the errors differ: %q", errs)
	}
}

func TestTheSameIdMakesItSafeToSendAgain(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var s store
		client, link := l.Connect(into(&s, time.Millisecond))
		time.AfterFunc(50*time.Millisecond, link.Cut)
		events := numbered(1, 100)
		acked, err := ingest(l.Context(), client, events)
		link.Heal()
		time.Sleep(time.Minute) // the channel has connected again
		first, _ := s.count()
		again, errAgain := ingest(l.Context(), client, events[len(acked):])
		stored, repeats := s.count()
		for i, id := range append(acked, again...) {
			if id != events[i].GetId() {
				l.Fatalf("acks %q, then %q, want those of all events in order", acked, again)
			}
		}
		if len(acked)+len(again) != len(events) || status.Code(err) != codes.Unavailable || errAgain != nil {
			l.Errorf("%d acks (%v), then %d (%v), want %d in all, Unavailable first and no error then", len(acked), err, len(again), errAgain, len(events))
		}
		if first != 45 || len(acked) != 39 || stored != 100 || repeats != 6 {
			l.Errorf("%d stored and %d acks, then %d stored and %d twice, want 45 and 39, 100 and 6", first, len(acked), stored, repeats)
		}
		l.Logf("cut after 50 ms: %d stored, %d acks; the other %d again: %d stored, %d came twice", first, len(acked), len(again), stored, repeats)
	})
}

func TestAnAckBeforeTheStoreProvesReceiptOnly(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(peer{ingest: func(stream ingestServer) error {
			ev, err := stream.Recv()
			if err != nil {
				return err
			}
			stream.Send(&feedv1.Ack{Id: ev.GetId()}) // a promise that the next line breaks
			return status.Error(codes.Internal, "the disk is full")
		}})
		acked, err := ingest(l.Context(), client, numbered(1, 1))
		if len(acked) != 1 || status.Code(err) != codes.Internal {
			l.Errorf("ingest returned %q and %v, want the ack and Internal", acked, err)
		}
		l.Logf("acks %d, stored 0, %v", len(acked), err)
	})
}

func TestAcksThatHaveArrivedSurviveTheEnd(t *testing.T) {
	for name, want := range map[string]codes.Code{
		"cancel": codes.Canceled, "deadline": codes.DeadlineExceeded, "cut": codes.Unavailable,
		"server stopped": codes.Unavailable, "connection closed": codes.Canceled,
	} {
		lab.Run(t, func(l *lab.Lab) {
			link := l.NewLink()
			srv := link.Serve(into(&store{}, 0))
			conn := link.Dial()
			ctx, cancel := context.WithTimeout(l.Context(), 2*time.Second)
			defer cancel()
			stream, err := feedv1.NewFeedServiceClient(conn).Ingest(ctx)
			if err != nil {
				l.Fatal(err)
			}
			for _, ev := range numbered(1, 100) {
				stream.Send(ev)
			}
			time.Sleep(time.Second) // all acks are here, and none is read
			switch name {
			case "cancel":
				cancel()
			case "cut":
				link.Cut()
			case "server stopped":
				srv.Stop()
			case "connection closed":
				conn.Close()
			}
			time.Sleep(2 * time.Second)
			acks, err := drain(stream)
			if acks != 100 || status.Code(err) != want {
				l.Errorf("%s: Recv returned %d acks and then %v, want 100 and %v", name, acks, err, want)
			}
			l.Logf("%s: seconds after the end Recv returns %d acks, and then %v", name, acks, err)
		})
	}
}

func TestPipeliningPaysTheRoundTripOnce(t *testing.T) {
	const events, takes, rtt = 1000, time.Millisecond, 100 * time.Millisecond
	took := map[string]time.Duration{}
	for name, f := range map[string]func(context.Context, feedv1.FeedServiceClient, []*feedv1.Event) ([]string, error){
		"pipelined": ingest, "lock-step": ingestInLockStep,
	} {
		lab.Run(t, func(l *lab.Lab) {
			var s store
			client, _ := l.Connect(into(&s, takes), lab.WithLatency(rtt/2))
			start := time.Now()
			acked, err := f(l.Context(), client, numbered(1, events))
			if took[name] = time.Since(start); len(acked) != events || err != nil {
				l.Errorf("%s: %d acks, %v", name, len(acked), err)
			}
		})
	}
	if took["pipelined"] != events*takes+rtt || took["lock-step"] != events*(takes+rtt)+rtt {
		t.Errorf("round trip %v: %v, want %v and %v", rtt, took, events*takes+rtt, events*(takes+rtt)+rtt)
	}
	t.Logf("%d events at a round trip of %v: %v in lock-step, %v pipelined", events, rtt, took["lock-step"], took["pipelined"])
}
