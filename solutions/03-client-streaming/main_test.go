package main

import (
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

type (
	handlerStream = grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]
	clientStream  = grpc.ClientStreamingClient[feedv1.Event, feedv1.UploadResult]
)

// numbered makes n events with bodies of size bytes.
func numbered(n, size int) []*feedv1.Event {
	var events []*feedv1.Event
	for i := range n {
		events = append(events, &feedv1.Event{Id: fmt.Sprint(i + 1), Topic: "alerts", Body: strings.Repeat("x", size)})
	}
	return events
}

// bench is a repo that takes a while and does what the test says.
type bench struct {
	takes time.Duration                       // a millisecond if not set
	fails map[string]error                    // by the event's id
	then  func(context.Context, string) error // called with the event's id

	mu     sync.Mutex
	events []*feedv1.Event
}

func (b *bench) Insert(ctx context.Context, ev *feedv1.Event) error {
	time.Sleep(max(b.takes, time.Millisecond))
	if err := b.fails[ev.GetId()]; err != nil {
		return err
	}
	if b.then != nil {
		if err := b.then(ctx, ev.GetId()); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, ev)
	return nil
}

// stored lists the ids of the events, in order of the ids: in which order
// they were stored is the handler's business.
func (b *bench) stored() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for _, ev := range b.events {
		ids = append(ids, ev.GetId())
	}
	slices.Sort(ids)
	return ids
}

// The handler, called by a client that makes no mistakes.

// watched tells the test how the handler ends.
type watched struct {
	*server
	ended chan error
}

func (w watched) UploadEvents(stream handlerStream) error {
	err := w.server.UploadEvents(stream)
	w.ended <- err
	return err
}

// end waits for at most a second until the handler has returned.
func (w watched) end(l *lab.Lab, otherwise string) error {
	l.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(time.Second):
	}
	if !l.Failed() { // it may have panicked, and that is said
		l.Errorf("%s", otherwise)
	}
	l.FailNow()
	return nil
}

// begin opens an upload to the handler and sends events.
func begin(l *lab.Lab, repo repo, events []*feedv1.Event) (stream clientStream, link *lab.Link, w watched, cancel func()) {
	l.Helper()
	w = watched{&server{repo: repo}, make(chan error, 1)}
	client, link := l.Connect(w)
	ctx, cancel := context.WithCancel(l.Context())
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		l.Fatal(err)
	}
	for _, ev := range events {
		stream.Send(ev) // an error here comes again when the receipt is due
	}
	return stream, link, w, cancel
}

// finish half-closes and waits for the receipt.
func finish(l *lab.Lab, stream clientStream) (receipt *feedv1.UploadResult, err error) {
	l.Helper()
	l.Call("UploadEvents", time.Minute, func() { receipt, err = stream.CloseAndRecv() })
	return receipt, err
}

// wantReceipt finishes the upload. All is said about it in the terms of the
// handler: gRPC's own text for a missing receipt speaks of cardinality.
func wantReceipt(l *lab.Lab, what string, stream clientStream, want int32) {
	l.Helper()
	receipt, err := finish(l, stream)
	switch text := status.Convert(err).Message(); {
	case err == nil && receipt.GetReceived() != want:
		l.Errorf("for %s UploadEvents answered with a receipt for %d, want %d", what, receipt.GetReceived(), want)
	case err == nil:
	case strings.Contains(text, "received no response message"):
		l.Fatalf("for %s UploadEvents ended without a receipt: the client waits for a message, and a nil is none", what)
	case strings.Contains(text, "but received another message"):
		l.Fatalf("for %s UploadEvents answered with more than one message: the client wants exactly one", what)
	case status.Code(err) == codes.Unknown && text == "EOF":
		l.Fatalf("for %s UploadEvents failed with EOF: that Recv returns EOF means that the client has half-closed, which is no failure", what)
	default:
		l.Fatalf("for %s UploadEvents failed with code %v (%s), want a receipt", what, status.Code(err), text)
	}
}

func TestTheHandlerAnswersWithAReceipt(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &bench{}
		stream, _, _, cancel := begin(l, repo, numbered(3, 10))
		defer cancel()
		wantReceipt(l, "3 events", stream, 3)
		if got := repo.stored(); !slices.Equal(got, []string{"1", "2", "3"}) {
			l.Fatalf("events 1, 2 and 3 were sent, and stored are %q", got)
		}
		for _, ev := range repo.events {
			if ev.GetTopic() != "alerts" || ev.GetBody() != "xxxxxxxxxx" {
				l.Errorf("an event of topic alerts with 10 letters was sent, and stored is %s", lab.Text(ev))
			}
		}
	})
}

func TestAnUploadOfOneOrNoEventHasAReceipt(t *testing.T) {
	for n := range 2 {
		lab.Run(t, func(l *lab.Lab) {
			repo := &bench{}
			stream, _, _, cancel := begin(l, repo, numbered(n, 10))
			defer cancel()
			wantReceipt(l, fmt.Sprintf("%d events", n), stream, int32(n))
			if got := repo.stored(); len(got) != n {
				l.Errorf("%d events were sent, and stored are %q", n, got)
			}
		})
	}
}

func TestEventsAreStoredAsTheyArrive(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &bench{}
		stream, _, _, cancel := begin(l, repo, nil)
		defer cancel()
		for i, ev := range numbered(3, 10) {
			stream.Send(ev)
			time.Sleep(time.Second)
			if got := len(repo.stored()); got != i+1 {
				l.Fatalf("the client sends an event each second, and a second after event %d UploadEvents has stored %d, want %d", i+1, got, i+1)
			}
		}
		wantReceipt(l, "3 events", stream, 3)
	})
}

func TestTheReceiptComesWhenAllIsStored(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &bench{takes: 100 * time.Millisecond}
		stream, _, _, cancel := begin(l, repo, numbered(3, 10))
		defer cancel()
		wantReceipt(l, "3 events", stream, 3)
		if got := len(repo.stored()); got != 3 {
			l.Errorf("Insert takes 100ms, and when the client had the receipt %d of 3 events were stored", got)
		}
	})
}

func TestTheReceiptCountsWhatThisUploadStored(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &bench{fails: map[string]error{
			"2": fmt.Errorf("insert 2: %w", errDuplicate),
			"4": errDuplicate,
		}}
		stream, _, _, cancel := begin(l, repo, numbered(5, 10))
		defer cancel()
		wantReceipt(l, "5 events, 2 of them duplicates,", stream, 3)
		if got := repo.stored(); !slices.Equal(got, []string{"1", "3", "5"}) {
			l.Errorf("events 1 to 5 were sent, 2 and 4 are duplicates, and stored are %q", got)
		}
	})
}

func TestEachUploadHasItsOwnCount(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{repo: &bench{}})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		var streams []clientStream
		events := numbered(5, 10)
		for _, part := range [][]*feedv1.Event{events[:3], events[3:]} {
			stream, err := client.UploadEvents(ctx)
			if err != nil {
				l.Fatal(err)
			}
			for _, ev := range part {
				stream.Send(ev)
			}
			time.Sleep(time.Second)
			streams = append(streams, stream)
		}
		wantReceipt(l, "the first of two uploads, with 3 events,", streams[0], 3)
		wantReceipt(l, "the second of two uploads, with 2 events,", streams[1], 2)
	})
}

func TestTheServerIsBlamedForAnInsertThatFails(t *testing.T) {
	for _, tt := range []struct {
		what  string
		sends int
		fails error
	}{
		{"event 2 of 3", 3, errors.New("disk of db-7 is full")},
		{"the last of 2 events", 2, errors.New("disk of db-7 is full")},
		{"event 2 of 3, with a status of its own", 3, status.Error(codes.NotFound, "table is missing")},
		{"event 2 of 3, with the EOF of its own connection", 3, fmt.Errorf("read from db-7: %w", io.EOF)},
	} {
		lab.Run(t, func(l *lab.Lab) {
			repo := &bench{fails: map[string]error{"2": tt.fails}}
			stream, _, _, cancel := begin(l, repo, numbered(tt.sends, 10))
			defer cancel()
			receipt, err := finish(l, stream)
			if err == nil {
				l.Fatalf("Insert failed for %s, and UploadEvents answered with a receipt for %d, want code Internal", tt.what, receipt.GetReceived())
			}
			if code, text := status.Code(err), status.Convert(err).Message(); code != codes.Internal || strings.Contains(text, "cardinality violation") {
				l.Errorf("Insert failed for %s, and UploadEvents ended with %s, want code Internal", tt.what, ending(err))
			}
		})
	}
}

// ending is what a handler did, from what its client was told.
func ending(err error) string {
	if strings.Contains(status.Convert(err).Message(), "received no response message") {
		return "code OK and no receipt"
	}
	return fmt.Sprintf("code %v", status.Code(err))
}

func TestAnInsertThatFailsEndsTheUploadAtOnce(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &bench{fails: map[string]error{"2": errors.New("disk of db-7 is full")}}
		_, _, w, cancel := begin(l, repo, numbered(3, 10))
		defer cancel()
		w.end(l, "Insert failed for event 2 of an upload that goes on, and a second later UploadEvents still runs: the client would learn of it at the end only")
	})
}

func TestAnAbandonedUploadIsNoSuccess(t *testing.T) {
	for _, way := range []string{"the client cancelled", "the network was cut"} {
		lab.Run(t, func(l *lab.Lab) {
			_, link, w, cancel := begin(l, &bench{}, numbered(3, 10))
			defer cancel()
			time.Sleep(time.Second)
			if way == "the client cancelled" {
				cancel()
			} else {
				link.Cut()
			}
			if err := w.end(l, way+", and a second later UploadEvents still runs"); err == nil {
				l.Errorf("%s after 3 events, before the half-close, and UploadEvents returned nil, want an error", way)
			}
		})
	}
}

func TestInsertStopsWhenTheClientIsGone(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		ended := make(chan bool, 1)
		repo := &bench{then: func(ctx context.Context, _ string) error {
			defer func() {
				select {
				case ended <- true:
				default: // the test has seen one
				}
			}()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Minute):
				return nil
			}
		}}
		_, _, _, cancel := begin(l, repo, numbered(1, 10))
		defer cancel()
		time.Sleep(2 * time.Second)
		cancel()
		select {
		case <-ended:
		case <-time.After(time.Second):
			l.Fatalf("a second after its client had left Insert was still busy: it was not given the context of the stream")
		}
	})
}

// upload, called with servers that do what the test says.

type scripted struct {
	feedv1.UnimplementedFeedServiceServer
	script func(handlerStream) error
}

func (s scripted) UploadEvents(stream handlerStream) error { return s.script(stream) }

// receive reads to the half-close.
func receive(stream handlerStream) (events []string, err error) {
	for {
		ev, err := stream.Recv()
		if err == io.EOF {
			return events, nil
		}
		if err != nil {
			return events, err
		}
		events = append(events, lab.Text(ev))
	}
}

// hang waits until the client is gone.
func hang(stream handlerStream) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// Two ways in which a server keeps upload waiting.
var waits = []struct {
	what   string
	script func(handlerStream) error
	events []*feedv1.Event
}{
	{"the server stores and sends no receipt", func(stream handlerStream) error {
		receive(stream)
		return hang(stream)
	}, numbered(3, 10)},
	{"the server reads nothing and Send waits", hang, numbered(400, 1000)},
}

// call runs upload with a limit in virtual time.
func call(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient, events []*feedv1.Event, limit time.Duration) (n int32, err error) {
	l.Helper()
	l.Call("upload", limit, func() { n, err = upload(ctx, client, events) })
	return n, err
}

func wantCode(l *lab.Lab, when string, n int32, err error, want codes.Code) {
	l.Helper()
	switch {
	case status.Code(err) == want:
	case want == codes.Canceled && errors.Is(err, context.Canceled):
	case want == codes.DeadlineExceeded && errors.Is(err, context.DeadlineExceeded):
	case err == nil:
		l.Fatalf("%s: upload returned %d and no error, want code %v", when, n, want)
	case errors.Is(err, io.EOF):
		l.Fatalf("%s: upload returned EOF, which says that the stream is over and not why, want code %v", when, want)
	default:
		l.Fatalf("%s: upload returned code %v (%v), want %v", when, status.Code(err), err, want)
	}
}

func TestUploadReturnsTheReceipt(t *testing.T) {
	for _, tt := range []struct{ sends, size, stored int }{{3, 10, 2}, {500, 1000, 499}} {
		lab.Run(t, func(l *lab.Lab) {
			got := make(chan []string, 1)
			client, _ := l.Connect(scripted{script: func(stream handlerStream) error {
				all, err := receive(stream)
				got <- all
				if err != nil {
					return err
				}
				return stream.SendAndClose(&feedv1.UploadResult{Received: int32(tt.stored)})
			}})
			events := numbered(tt.sends, tt.size)
			n, err := call(l.Context(), l, client, events, time.Minute)
			if err != nil {
				l.Fatalf("upload returned the error %v, want none", err)
			}
			if n != int32(tt.stored) {
				l.Errorf("upload sent %d events, the receipt counts %d, and upload returned %d", tt.sends, tt.stored, n)
			}
			all := <-got
			if len(all) != tt.sends {
				l.Fatalf("upload was given %d events, and %d arrived", tt.sends, len(all))
			}
			for i, ev := range events {
				if want := lab.Text(ev); all[i] != want {
					l.Fatalf("upload was given %s as number %d, and what arrived is %s", want, i+1, all[i])
				}
			}
		})
	}
}

func TestUploadWaitsForTheReceipt(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(scripted{script: func(stream handlerStream) error {
			if _, err := receive(stream); err != nil {
				return err
			}
			select {
			case <-time.After(time.Hour):
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
			return stream.SendAndClose(&feedv1.UploadResult{Received: 3})
		}})
		start := time.Now()
		n, err := call(l.Context(), l, client, numbered(3, 10), 2*time.Hour)
		took := time.Since(start)
		if took < time.Hour {
			l.Errorf("the server needs an hour to store 3 events, and upload returned %d and error %v after %v", n, err, took.Round(time.Second))
		} else if n != 3 || err != nil {
			l.Errorf("the server needs an hour to store 3 events, and upload returned %d and error %v, want 3", n, err)
		}
	}, lab.Lasts(3*time.Hour))
}

func TestTheStatusOfTheServerReachesTheCaller(t *testing.T) {
	denied := status.Error(codes.PermissionDenied, "topic is read-only")
	for _, tt := range []struct {
		what   string
		events []*feedv1.Event
		script func(handlerStream) error
	}{
		{"the server read all 3 events and ended with PermissionDenied", numbered(3, 10), func(stream handlerStream) error {
			receive(stream)
			return denied
		}},
		{"the server read 1 of 3 events and ended with PermissionDenied", numbered(3, 10), func(stream handlerStream) error {
			stream.Recv()
			return denied
		}},
		{"the server read 1 of 400 events and ended with PermissionDenied", numbered(400, 1000), func(stream handlerStream) error {
			stream.Recv()
			return denied
		}},
		{"the server sent a receipt and then ended with PermissionDenied", numbered(3, 10), func(stream handlerStream) error {
			receive(stream)
			stream.SendAndClose(&feedv1.UploadResult{Received: 3})
			return denied
		}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(scripted{script: tt.script})
			n, err := call(l.Context(), l, client, tt.events, time.Minute)
			wantCode(l, tt.what, n, err, codes.PermissionDenied)
		})
	}
}

func TestUploadWithoutAReceiptFails(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(scripted{script: func(stream handlerStream) error {
			receive(stream)
			return nil
		}})
		n, err := call(l.Context(), l, client, numbered(3, 10), time.Minute)
		if err == nil {
			l.Errorf("the server ended with OK and without a receipt, and upload returned %d and no error", n)
		}
	})
}

func TestTheDeadlineOfTheCallerHolds(t *testing.T) {
	for _, tt := range waits {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(scripted{script: tt.script})
			ctx, cancel := context.WithTimeout(l.Context(), 2*time.Second)
			defer cancel()
			start := time.Now()
			n, err := call(ctx, l, client, tt.events, time.Minute)
			wantCode(l, tt.what+", and the caller allows 2s", n, err, codes.DeadlineExceeded)
			if took := time.Since(start); took != 2*time.Second {
				l.Errorf("%s, the caller allows 2s, and upload returned after %v", tt.what, took)
			}
		})
	}
}

func TestTheCancelOfTheCallerHolds(t *testing.T) {
	for _, tt := range waits {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(scripted{script: tt.script})
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			time.AfterFunc(2*time.Second, cancel)
			start := time.Now()
			n, err := call(ctx, l, client, tt.events, time.Minute)
			wantCode(l, tt.what+", and the caller cancels after 2s", n, err, codes.Canceled)
			if took := time.Since(start); took != 2*time.Second {
				l.Errorf("%s, the caller cancels after 2s, and upload returned after %v", tt.what, took)
			}
		})
	}
}

func TestUploadEndsWhenTheNetworkDies(t *testing.T) {
	for _, tt := range waits {
		lab.Run(t, func(l *lab.Lab) {
			client, link := l.Connect(scripted{script: tt.script})
			time.AfterFunc(time.Second, link.Cut)
			n, err := call(l.Context(), l, client, tt.events, time.Minute)
			wantCode(l, tt.what+", and the network is cut", n, err, codes.Unavailable)
		})
	}
}

func TestUploadSaysThatItCannotBegin(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(scripted{script: hang})
		link.Cut()
		time.Sleep(time.Second) // the client has noticed
		n, err := call(l.Context(), l, client, numbered(3, 10), time.Minute)
		wantCode(l, "there is no server", n, err, codes.Unavailable)
	})
}

func TestAnEventThatCannotBeSentFailsTheUpload(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(scripted{script: func(stream handlerStream) error {
			all, err := receive(stream)
			if err != nil {
				return err
			}
			return stream.SendAndClose(&feedv1.UploadResult{Received: int32(len(all))})
		}})
		events := numbered(3, 10)
		events[1].Body = "\xff" // not UTF-8, so Send refuses it
		n, err := call(l.Context(), l, client, events, time.Minute)
		if err == nil {
			l.Errorf("event 2 of 3 is not UTF-8, Send refused it, and upload returned %d and no error", n)
		}
	})
}
