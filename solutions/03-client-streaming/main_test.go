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

// each runs one of several cases. The first that fails says what is wrong.
func each(t *testing.T, body func(*lab.Lab), opts ...lab.Option) {
	t.Helper()
	if !t.Failed() {
		lab.Run(t, body, opts...)
	}
}

// bench is a repo that takes a while and does what the test says.
type bench struct {
	takes time.Duration                       // a millisecond if not set
	fails map[string]error                    // by the event's id
	then  func(context.Context, string) error // called with the event's id

	returned atomic.Int32 // how many Inserts

	mu     sync.Mutex
	events []*feedv1.Event
	ids    map[string]bool // that the events had when they came
}

func (b *bench) Insert(ctx context.Context, ev *feedv1.Event) error {
	defer b.returned.Add(1)
	id := ev.GetId()
	time.Sleep(max(b.takes, time.Millisecond))
	if err := b.fails[id]; err != nil {
		return err
	}
	if b.then != nil {
		if err := b.then(ctx, id); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ids[id] {
		return fmt.Errorf("insert %s: %w", id, errDuplicate)
	}
	if b.ids == nil {
		b.ids = map[string]bool{}
	}
	b.ids[id] = true
	b.events = append(b.events, ev)
	return nil
}

// waiting makes an Insert that waits for the channel or for its client.
func waiting[T any](until <-chan T) func(context.Context, string) error {
	return func(ctx context.Context, _ string) error {
		select {
		case <-until:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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

// second is a second and a little: what the README wants within one may take
// all of it, and has the network to cross.
const second = 1100 * time.Millisecond

// watched tells the test what the handler receives, and how it ends.
type watched struct {
	*server
	client   feedv1.FeedServiceClient
	repo     *bench
	received atomic.Int32 // how many events
	early    atomic.Value // string: what had not been stored when the receipt was sent
	answered atomic.Int64 // when the receipt was sent, in ns since 1970
	lingered atomic.Int64 // for how many ns the handler ran on after that
	ended    chan error
}

func (w *watched) UploadEvents(stream handlerStream) error {
	err := w.server.UploadEvents(watchedStream{stream, w})
	if at := w.answered.Swap(0); at > 0 {
		w.lingered.Store(time.Now().UnixNano() - at)
	}
	w.ended <- err
	return err
}

type watchedStream struct {
	handlerStream
	w *watched
}

func (s watchedStream) Recv() (*feedv1.Event, error) {
	ev, err := s.handlerStream.Recv()
	if err == nil {
		s.w.received.Add(1)
	}
	return ev, err
}

func (s watchedStream) RecvMsg(m any) error {
	err := s.handlerStream.RecvMsg(m)
	if err == nil {
		s.w.received.Add(1)
	}
	return err
}

func (s watchedStream) SendAndClose(receipt *feedv1.UploadResult) error {
	s.w.answers()
	return s.handlerStream.SendAndClose(receipt)
}

func (s watchedStream) SendMsg(m any) error {
	s.w.answers()
	return s.handlerStream.SendMsg(m)
}

func (w *watched) answers() {
	w.answered.Store(time.Now().UnixNano())
	if received, returned := w.received.Load(), w.repo.returned.Load(); returned < received {
		w.early.Store(fmt.Sprintf(": when it sent the receipt it had received %d, and Insert had returned for %d of them", received, returned))
	}
}

// end waits for at most a second until the handler has returned.
func (w *watched) end(l *lab.Lab, after string) error {
	l.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(second):
	}
	if !l.Failed() { // it may have panicked, and that is said
		l.Errorf("%s, and a second later UploadEvents still runs:\n%s", after, l.Stuck())
	}
	l.FailNow()
	return nil
}

// open opens an upload and sends events. The counts begin again.
func (w *watched) open(ctx context.Context, l *lab.Lab, events []*feedv1.Event) clientStream {
	l.Helper()
	w.received.Store(0)
	w.repo.returned.Store(0)
	stream, err := w.client.UploadEvents(ctx)
	if err != nil {
		l.Fatal(err)
	}
	for _, ev := range events {
		stream.Send(ev) // an error here comes again when the receipt is due
	}
	return stream
}

// begin serves the handler, opens an upload to it and sends events.
func begin(l *lab.Lab, repo *bench, events []*feedv1.Event) (stream clientStream, link *lab.Link, w *watched, cancel func()) {
	l.Helper()
	w = &watched{server: &server{repo: repo}, repo: repo, ended: make(chan error, 10)}
	w.client, link = l.Connect(w)
	ctx, cancel := context.WithCancel(l.Context())
	return w.open(ctx, l, events), link, w, cancel
}

// finish half-closes and waits for the receipt.
func finish(l *lab.Lab, stream clientStream) (receipt *feedv1.UploadResult, err error) {
	l.Helper()
	l.Call("UploadEvents", time.Minute, func() { receipt, err = stream.CloseAndRecv() })
	return receipt, err
}

// wantReceipt finishes the upload. All is said about it in the terms of the
// handler: gRPC's own text for a missing receipt speaks of cardinality.
func (w *watched) wantReceipt(l *lab.Lab, what string, stream clientStream, want int32) {
	l.Helper()
	receipt, err := finish(l, stream)
	switch text := status.Convert(err).Message(); {
	case err == nil && receipt.GetReceived() != want:
		early, _ := w.early.Load().(string)
		l.Errorf("for %s UploadEvents answered with a receipt for %d, want %d%s", what, receipt.GetReceived(), want, early)
	case err == nil:
		if late := time.Duration(w.lingered.Swap(0)); late > second {
			l.Errorf("for %s UploadEvents returned %v after it had sent the receipt: the client waits for the return", what, late.Round(time.Second))
		}
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
		stream, _, w, cancel := begin(l, repo, numbered(3, 10))
		defer cancel()
		w.wantReceipt(l, "3 events", stream, 3)
		if got := repo.stored(); !slices.Equal(got, []string{"1", "2", "3"}) {
			why := ""
			if len(repo.events) > 1 && repo.events[0] == repo.events[1] {
				why = ": Insert was given the same *feedv1.Event again, and what the repo holds has changed"
			}
			l.Fatalf("events 1, 2 and 3 were sent, and stored are %q%s", got, why)
		}
		for _, ev := range repo.events {
			if ev.GetTopic() != "alerts" || ev.GetBody() != "xxxxxxxxxx" {
				l.Errorf("an event of topic alerts with 10 letters was sent, and stored is %s", lab.Text(ev))
			}
		}
	})
}

func TestAnUploadOfOneOrNoEventHasAReceipt(t *testing.T) {
	for _, tt := range []struct {
		what   string
		events []*feedv1.Event
	}{
		{"no event", nil},
		{"1 event", numbered(1, 10)},
		{"1 event, which has neither an id nor a topic,", []*feedv1.Event{{Body: "x"}}},
	} {
		each(t, func(l *lab.Lab) {
			repo := &bench{}
			stream, _, w, cancel := begin(l, repo, tt.events)
			defer cancel()
			w.wantReceipt(l, tt.what, stream, int32(len(tt.events)))
			if got := repo.stored(); len(got) != len(tt.events) {
				l.Errorf("%s was sent, and stored are %q", tt.what, got)
			}
		})
	}
}

func TestEventsAreStoredAsTheyArrive(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &bench{}
		stream, _, w, cancel := begin(l, repo, nil)
		defer cancel()
		for i, ev := range numbered(3, 10) {
			stream.Send(ev)
			time.Sleep(second)
			if got := len(repo.stored()); got != i+1 {
				l.Fatalf("the client sends an event each second, and a second after event %d UploadEvents has stored %d, want %d", i+1, got, i+1)
			}
		}
		w.wantReceipt(l, "3 events", stream, 3)
	})
}

func TestTheReceiptComesWhenAllIsStored(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &bench{takes: 100 * time.Millisecond}
		stream, _, w, cancel := begin(l, repo, numbered(3, 10))
		defer cancel()
		w.wantReceipt(l, "3 events", stream, 3)
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
		stream, _, w, cancel := begin(l, repo, numbered(5, 10))
		defer cancel()
		w.wantReceipt(l, "5 events, 2 of them duplicates,", stream, 3)
		if got := repo.stored(); !slices.Equal(got, []string{"1", "3", "5"}) {
			l.Errorf("events 1 to 5 were sent, 2 and 4 are duplicates, and stored are %q", got)
		}
	})
	each(t, func(l *lab.Lab) {
		repo := &bench{fails: map[string]error{}}
		events := numbered(400, 10)
		for _, ev := range events {
			repo.fails[ev.GetId()] = errDuplicate
		}
		stream, _, w, cancel := begin(l, repo, events)
		defer cancel()
		w.wantReceipt(l, "400 events, all of them duplicates,", stream, 0)
	})
}

func TestTheServerIsBlamedForAnInsertThatFails(t *testing.T) {
	disk := errors.New("disk of db-7 is full")
	for _, tt := range []struct {
		what  string
		sends int
		fails error
	}{
		{"event 2 of 3", 3, disk},
		{"the last of 2 events", 2, disk},
		{"event 2 of 3, with a status of its own", 3, status.Error(codes.NotFound, "table is missing")},
		{"event 2 of 3, with the EOF of its own connection", 3, fmt.Errorf("read from db-7: %w", io.EOF)},
		{"event 2 of 3, with a deadline of its own", 3, fmt.Errorf("insert 2: %w", context.DeadlineExceeded)},
		{"event 2 of 3, with a cancel of its own", 3, fmt.Errorf("insert 2: %w", context.Canceled)},
		{"event 2 of 3, with an AlreadyExists that is not errDuplicate", 3, status.Error(codes.AlreadyExists, "lock is held")},
		{"event 2 of 3, with a text like errDuplicate's", 3, errors.New("cannot tell whether 2 is stored already")},
	} {
		each(t, func(l *lab.Lab) {
			repo := &bench{fails: map[string]error{"2": tt.fails}}
			stream, _, _, cancel := begin(l, repo, numbered(tt.sends, 10))
			defer cancel()
			wantInternal(l, tt.what, stream)
		})
	}
}

// wantInternal finishes an upload for which Insert failed.
func wantInternal(l *lab.Lab, what string, stream clientStream) {
	l.Helper()
	receipt, err := finish(l, stream)
	if err == nil {
		l.Fatalf("Insert failed for %s, and UploadEvents answered with a receipt for %d, want code Internal", what, receipt.GetReceived())
	}
	if code, text := status.Code(err), status.Convert(err).Message(); code != codes.Internal || strings.Contains(text, "cardinality violation") {
		l.Fatalf("Insert failed for %s, and UploadEvents ended with %s, want code Internal", what, ending(err))
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
		w.end(l, "Insert failed for event 2 of an upload that goes on")
	})
}

func TestAFailedUploadCanBeRepeated(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var tries atomic.Int32
		repo := &bench{then: func(_ context.Context, id string) error {
			if id == "2" && tries.Add(1) == 1 {
				return errors.New("disk of db-7 is full")
			}
			return nil
		}}
		stream, _, w, cancel := begin(l, repo, numbered(3, 10))
		defer cancel()
		wantInternal(l, "event 2 of 3, once", stream)
		time.Sleep(second)
		before := len(repo.stored())
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream = w.open(ctx, l, numbered(3, 10))
		w.wantReceipt(l, fmt.Sprintf("3 events that were sent before, of which %d are stored,", before), stream, int32(3-before))
		if got := repo.stored(); !slices.Equal(got, []string{"1", "2", "3"}) {
			l.Errorf("Insert failed once for event 2, events 1, 2 and 3 were sent again, and stored are %q", got)
		}
	})
}

func TestASlowInsertMakesTheClientWait(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const sends, most = 3000, 2000 // the README says 2,000
		release, sent := make(chan struct{}), make(chan struct{})
		stream, _, w, cancel := begin(l, &bench{then: waiting(release)}, nil)
		defer cancel()
		go func() {
			defer close(sent)
			for _, ev := range numbered(sends, 1000) {
				if stream.Send(ev) != nil {
					return
				}
			}
		}()
		time.Sleep(time.Minute)
		if got := w.received.Load(); got > most {
			l.Fatalf("Insert has been waiting for a minute, and UploadEvents has received %d of %d events, want at most %d", got, sends, most)
		}
		close(release)
		l.Call("UploadEvents", time.Minute, func() { <-sent })
		w.wantReceipt(l, fmt.Sprintf("%d events and an Insert that waits for a minute", sends), stream, sends)
	})
}

func TestAnUploadMayLastForDays(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		events := numbered(2, 10)
		repo := &bench{then: func(ctx context.Context, id string) error {
			return waiting(time.After(time.Hour))(ctx, id)
		}}
		stream, _, w, cancel := begin(l, repo, events[:1])
		defer cancel()
		time.Sleep(48 * time.Hour)
		stream.Send(events[1])
		stream.CloseSend()
		time.Sleep(time.Hour)
		w.wantReceipt(l, "2 events with 48 hours between them, and an Insert that takes an hour,", stream, 2)
	}, lab.Lasts(72*time.Hour))
}

func TestAnAbandonedUploadIsNoSuccess(t *testing.T) {
	for range 10 { // a handler that leaves it to chance is found out
		for _, way := range []string{"the client cancelled", "the network was cut"} {
			each(t, func(l *lab.Lab) {
				_, link, w, cancel := begin(l, &bench{}, numbered(3, 10))
				defer cancel()
				time.Sleep(2 * time.Second)
				if way == "the client cancelled" {
					cancel()
				} else {
					link.Cut()
				}
				if err := w.end(l, way); err == nil {
					l.Errorf("%s after 3 events, before the half-close, and UploadEvents returned nil, want an error", way)
				}
			})
		}
	}
}

func TestInsertStopsWhenTheClientIsGone(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		ended := make(chan bool, 1)
		repo := &bench{then: func(ctx context.Context, id string) error {
			defer func() {
				select {
				case ended <- true:
				default: // the test has seen one
				}
			}()
			return waiting(time.After(time.Minute))(ctx, id)
		}}
		_, _, _, cancel := begin(l, repo, numbered(1, 10))
		defer cancel()
		time.Sleep(2 * time.Second)
		cancel()
		select {
		case <-ended:
		case <-time.After(second):
			l.Fatalf("a second after its client had left Insert was still busy: its context was not cancelled")
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
	if rpcs := l.RPCs(); len(rpcs) != 1 {
		where := ""
		if len(rpcs) > 0 {
			where = ", the last at " + rpcs[len(rpcs)-1].OpenedAt
		}
		l.Fatalf("upload returned %d and error %v, and has opened %d streams%s, want 1", n, err, len(rpcs), where)
	}
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
	again := numbered(3, 10)
	again[2] = again[0] // as a client sends that has not heard of the first
	for _, tt := range []struct {
		what    string
		events  []*feedv1.Event
		reads   bool // all of them, and not the first only
		receipt int32
	}{
		{"upload was given 3 events, the last like the first", again, true, 2},
		{"upload was given 3 events, all of them stored already", numbered(3, 10), true, 0},
		{"upload was given no event", nil, true, 7},
		{"upload was given 2,500 events", numbered(2500, 100), true, 2499},
		{"upload was given 400 events, and the server reads 1", numbered(400, 1000), false, 7},
	} {
		each(t, func(l *lab.Lab) {
			got := make(chan []string, 1)
			client, _ := l.Connect(scripted{script: func(stream handlerStream) error {
				if !tt.reads {
					stream.Recv()
					return stream.SendAndClose(&feedv1.UploadResult{Received: tt.receipt})
				}
				all, err := receive(stream)
				select {
				case got <- all:
				default: // of a second stream, and call says that there is one
				}
				if err != nil {
					return err
				}
				return stream.SendAndClose(&feedv1.UploadResult{Received: tt.receipt})
			}})
			n, err := call(l.Context(), l, client, tt.events, time.Minute)
			if err != nil {
				l.Fatalf("%s: the receipt counts %d, and upload returned the error %v, want none", tt.what, tt.receipt, err)
			}
			if n != tt.receipt {
				l.Fatalf("%s: the receipt counts %d, and upload returned %d", tt.what, tt.receipt, n)
			}
			if !tt.reads {
				return
			}
			all := <-got
			if len(all) != len(tt.events) {
				l.Fatalf("%s: the server received %d", tt.what, len(all))
			}
			for i, ev := range tt.events {
				if want := lab.Text(ev); all[i] != want {
					l.Fatalf("upload was given %s as number %d, and what arrived is %s", want, i+1, all[i])
				}
			}
		})
	}
}

func TestUploadWaitsForTheServer(t *testing.T) {
	for _, tt := range []struct {
		what   string
		events []*feedv1.Event
		before func(handlerStream) // the hour
	}{
		{"the server needs an hour to store 3 events", numbered(3, 10), func(stream handlerStream) { receive(stream) }},
		{"the server reads 1 of 400 events, and then nothing for an hour", numbered(400, 1000), func(stream handlerStream) { stream.Recv() }},
	} {
		each(t, func(l *lab.Lab) {
			client, link := l.Connect(scripted{script: func(stream handlerStream) error {
				tt.before(stream)
				select {
				case <-time.After(time.Hour):
				case <-stream.Context().Done():
					return stream.Context().Err()
				}
				receive(stream)
				return stream.SendAndClose(&feedv1.UploadResult{Received: 3})
			}})
			start := time.Now()
			n, err := call(l.Context(), l, client, tt.events, 2*time.Hour)
			took := time.Since(start)
			if took < time.Hour {
				l.Errorf("%s, and upload returned %d and error %v after %v", tt.what, n, err, took.Round(time.Second))
			} else if n != 3 || err != nil {
				l.Errorf("%s, and upload returned %d and error %v, want the 3 of the receipt", tt.what, n, err)
			}
			for _, frame := range link.Frames() { // none has left yet where upload returned at once
				if limit := frame.Field("grpc-timeout"); limit != "" {
					l.Errorf("the caller sets no deadline, and upload sent grpc-timeout %s", limit)
				}
			}
		}, lab.Lasts(3*time.Hour))
	}
}

func TestTheStatusOfTheServerReachesTheCaller(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		each(t, func(l *lab.Lab) {
			client, _ := l.Connect(scripted{script: func(stream handlerStream) error {
				receive(stream)
				return status.Error(code, "as the test wants it")
			}})
			n, err := call(l.Context(), l, client, numbered(3, 10), time.Minute)
			wantCode(l, fmt.Sprintf("the server read all 3 events and ended with %v", code), n, err, code)
		})
	}
	denied := status.Error(codes.PermissionDenied, "topic is read-only")
	for _, tt := range []struct {
		what   string
		events []*feedv1.Event
		script func(handlerStream) error
	}{
		{"the server ended an upload of no event with PermissionDenied", nil, func(stream handlerStream) error {
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
		each(t, func(l *lab.Lab) {
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
		each(t, func(l *lab.Lab) {
			client, _ := l.Connect(scripted{script: tt.script})
			ctx, cancel := context.WithTimeout(l.Context(), 2*time.Second)
			defer cancel()
			start := time.Now()
			n, err := call(ctx, l, client, tt.events, time.Minute)
			wantCode(l, tt.what+", and the caller allows 2s", n, err, codes.DeadlineExceeded)
			if took := time.Since(start); took < 2*time.Second || took > 2*time.Second+second {
				l.Errorf("%s, the caller allows 2s, and upload returned after %v, want within a second of that", tt.what, took)
			}
		})
	}
}

func TestTheCancelOfTheCallerHolds(t *testing.T) {
	for _, tt := range waits {
		each(t, func(l *lab.Lab) {
			client, _ := l.Connect(scripted{script: tt.script})
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			time.AfterFunc(2*time.Second, cancel)
			start := time.Now()
			n, err := call(ctx, l, client, tt.events, time.Minute)
			wantCode(l, tt.what+", and the caller cancels after 2s", n, err, codes.Canceled)
			if took := time.Since(start); took < 2*time.Second || took > 2*time.Second+second {
				l.Errorf("%s, the caller cancels after 2s, and upload returned after %v, want within a second of that", tt.what, took)
			}
		})
	}
}

func TestUploadEndsWhenTheNetworkDies(t *testing.T) {
	for _, tt := range waits {
		each(t, func(l *lab.Lab) {
			client, link := l.Connect(scripted{script: tt.script})
			time.AfterFunc(time.Second, link.Cut)
			start := time.Now()
			n, err := call(l.Context(), l, client, tt.events, time.Minute)
			wantCode(l, tt.what+", and the network is cut", n, err, codes.Unavailable)
			if took := time.Since(start); took > time.Second+second {
				l.Errorf("%s, the network is cut after 1s, and upload returned after %v, want within a second of that", tt.what, took)
			}
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

// The last check, because a lock that is held while Insert waits stops virtual
// time, and that ends the process.

func TestUploadsAtTheSameTimeKeepApart(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		release := make(chan struct{})
		repo := &bench{then: func(ctx context.Context, id string) error {
			if id == "1" {
				return waiting(release)(ctx, id)
			}
			return nil
		}}
		events := numbered(6, 10)
		first, _, w, cancel := begin(l, repo, events[:1])
		defer cancel()
		time.Sleep(second)
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		next, last := w.open(ctx, l, events[1:4]), w.open(ctx, l, events[4:])
		time.Sleep(second)
		w.wantReceipt(l, "the second of three uploads, with 3 events, while Insert waits for the first,", next, 3)
		w.wantReceipt(l, "the third of three uploads, with 2 events, while Insert waits for the first,", last, 2)
		close(release)
		w.wantReceipt(l, "the first of three uploads, with 1 event,", first, 1)
	})
}
