package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// A feed is a server with a script for its streams. It remembers what it
// stored.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	script script

	mu     sync.Mutex
	opened int
	good   int         // handlers that returned nil
	ended  []time.Time // when the handlers returned
	stored []*feedv1.Event
}

type script func(f *feed, stream uploadServer) error

// mostStreams is more streams than any test needs. It stops an upload that
// goes on for ever.
const mostStreams = 300

func (f *feed) UploadEvents(stream uploadServer) (err error) {
	tooMany := false
	f.note(func() { f.opened++; tooMany = f.opened > mostStreams })
	defer f.note(func() {
		f.ended = append(f.ended, time.Now())
		if err == nil {
			f.good++
		}
	})
	if tooMany {
		return status.Error(codes.Aborted, "the check has seen enough streams")
	}
	return f.script(f, stream)
}

func (f *feed) note(g func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g()
}

// receive takes most events from the stream, or all that there are before the
// half-close, and stores the first keep of them. It returns how many it stored.
func (f *feed) receive(stream uploadServer, most, keep int) (stored int, err error) {
	for i := range most {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return stored, err
		}
		if i < keep {
			f.note(func() { f.stored = append(f.stored, ev) })
			stored++
		}
	}
	return stored, nil
}

const all = 1_000_000 // more events than any test has

// keeps receives most events, stores the first keep of them and says OK.
func keeps(most, keep int) script {
	return func(f *feed, stream uploadServer) error {
		n, err := f.receive(stream, most, keep)
		if err != nil {
			return err
		}
		return stream.SendAndClose(&feedv1.UploadResult{Received: int32(n)})
	}
}

// takes receives and stores most events, and says OK.
func takes(most int) script { return keeps(most, most) }

// fails receives three events, stores none and returns err.
func fails(err error) script {
	return func(f *feed, stream uploadServer) error {
		if _, err := f.receive(stream, 3, 0); err != nil {
			return err
		}
		return err
	}
}

// thanksAndFails sends a receipt for three events and returns err.
func thanksAndFails(err error) script {
	return func(f *feed, stream uploadServer) error {
		takes(3)(f, stream)
		return err
	}
}

// stays receives most events, stores none and waits until the client is gone.
func stays(most int) script {
	return func(f *feed, stream uploadServer) error {
		f.receive(stream, most, 0)
		<-stream.Context().Done()
		return stream.Context().Err()
	}
}

// then plays first on the first stream and next on all others.
func then(first, next script) script {
	return func(f *feed, stream uploadServer) error {
		s := next
		f.note(func() {
			if f.opened == 1 {
				s = first
			}
		})
		return s(f, stream)
	}
}

const twoDays = 48 * time.Hour

// slowly lets two days pass before s can receive a fourth time.
func slowly(s script) script {
	return func(f *feed, stream uploadServer) error { return s(f, &slowServer{uploadServer: stream}) }
}

type slowServer struct {
	uploadServer
	received int
}

func (s *slowServer) Recv() (*feedv1.Event, error) {
	if s.received++; s.received == 4 {
		select {
		case <-time.After(twoDays):
		case <-s.Context().Done():
		}
	}
	return s.uploadServer.Recv()
}

// small and large are sizes of an event's body. 400 large ones are more than a
// stream takes on when the server does not read.
const (
	small = 10
	large = 1000
)

func numbered(n, size int) []*feedv1.Event {
	body := strings.Repeat("x", size)
	var events []*feedv1.Event
	for i := range n {
		events = append(events, &feedv1.Event{Id: fmt.Sprint(i + 1), Topic: "alerts", Body: body})
	}
	return events
}

// call runs upload with a limit in virtual time, and checks that it wastes
// none.
func call(ctx context.Context, l *lab.Lab, f *feed, client feedv1.FeedServiceClient, what string, events []*feedv1.Event, limit time.Duration) (stored int, err error) {
	l.Helper()
	returned := false
	defer func() {
		if !returned {
			f.note(func() {
				l.Errorf("%s: meanwhile the server has stored %d of %d events and has ended %d of %d streams", what, len(f.stored), len(events), len(f.ended), f.opened)
			})
		}
	}()
	l.Call("upload", limit, func() { stored, err = upload(ctx, client, events) })
	returned = true
	f.mu.Lock()
	defer f.mu.Unlock()
	rpcs := l.RPCs()
	for i, ended := range f.ended {
		next, does := time.Now(), "returned"
		if i+1 < len(rpcs) {
			next, does = rpcs[i+1].Began, "opened the next"
		}
		if late := next.Sub(ended) - lab.Latency; late > time.Second {
			l.Fatalf("%s: the end of stream %d had reached upload, and it %s %v later, want at most 1s", what, i+1, does, late)
		}
	}
	return stored, err
}

// wantStreams checks how many streams upload opened.
func wantStreams(l *lab.Lab, what string, want int) {
	l.Helper()
	rpcs := l.RPCs()
	switch n := len(rpcs); {
	case n > want:
		l.Fatalf("%s: upload opened %d streams, the last at %s, want %d", what, n, rpcs[n-1].OpenedAt, want)
	case n < want:
		l.Fatalf("%s: upload opened %d streams, want %d", what, n, want)
	}
}

// wantAll checks an upload to a server that says OK to each stream and stores
// all events in the end.
func wantAll(t *testing.T, what string, events []*feedv1.Event, s script, streams int, limit time.Duration) {
	t.Helper()
	if t.Failed() {
		return // the first case that fails says what is wrong
	}
	lab.Run(t, func(l *lab.Lab) {
		f := &feed{script: s}
		client, _ := l.Connect(f)
		stored, err := call(l.Context(), l, f, client, what, events, limit)
		var there, good, opened int
		var wrong string
		f.note(func() {
			there, good, opened, wrong = len(f.stored), f.good, f.opened, difference(f.stored, events)
		})
		switch {
		case wrong != "":
			l.Fatalf("%s: %s", what, wrong)
		case opened > mostStreams:
			wantStreams(l, what, streams)
		case errors.Is(err, io.EOF):
			l.Fatalf("%s: upload returned EOF, which says that a stream has ended and not how: the server had said OK, and has stored %d of %d events", what, there, len(events))
		case err != nil && good < opened:
			l.Fatalf("%s: upload gave up after %v, with the error %v: its caller's context was alive, and the server was still at work on stream %d", what, l.Elapsed().Round(time.Second), err, opened)
		case err != nil:
			l.Fatalf("%s: upload returned the error %v: the server had said OK, and has stored %d of %d events", what, err, there, len(events))
		case there < len(events):
			l.Fatalf("%s: upload returned %d and no error, and the server has stored %d of %d events: its receipts say no more", what, stored, there, len(events))
		case stored != len(events):
			l.Fatalf("%s: all %d events are stored, and upload returned %d", what, len(events), stored)
		}
		wantStreams(l, what, streams)
	}, lab.Lasts(2*limit))
}

// difference says where stored is not what events begins with.
func difference(stored, events []*feedv1.Event) string {
	place := map[string]int{}
	for i, got := range stored {
		last, twice := place[got.GetId()]
		place[got.GetId()] = i
		switch {
		case i < len(events) && lab.Text(got) == lab.Text(events[i]):
		case twice:
			return fmt.Sprintf("the server has stored event %s as number %d and again as number %d", got.GetId(), last+1, i+1)
		case i < len(events) && got.GetId() != events[i].GetId():
			return fmt.Sprintf("the server has stored %d events, and event %s is none of them: after number %d it was sent event %s", len(stored), events[i].GetId(), i, got.GetId())
		default:
			return fmt.Sprintf("number %d that the server has stored is %s, which is none of the events", i+1, lab.Text(got))
		}
	}
	return ""
}

// wantFailure checks what upload returned when the last stream failed. A
// context's own error is as good as the status that gRPC makes of it.
func wantFailure(l *lab.Lab, what string, stored int, err error, want codes.Code, wantStored, streams int) {
	l.Helper()
	got := status.Code(err)
	switch {
	case errors.Is(err, context.Canceled):
		got = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		got = codes.DeadlineExceeded
	}
	switch {
	case err == nil:
		l.Fatalf("%s: upload returned %d and no error, want code %v", what, stored, want)
	case got != want && errors.Is(err, io.EOF):
		l.Fatalf("%s: upload returned EOF, which says that a stream has ended and not how, want code %v", what, want)
	case got != want:
		l.Fatalf("%s: upload returned code %v (%v), want %v", what, got, err, want)
	case stored != wantStored:
		l.Fatalf("%s: upload returned %d beside the error, and the receipts of the streams before the failed one say %d", what, stored, wantStored)
	}
	wantStreams(l, what, streams)
}

func TestAllEventsGoOnOneStream(t *testing.T) {
	wantAll(t, "3 events", numbered(3, small), takes(all), 1, time.Minute)
	wantAll(t, "no event", nil, takes(all), 1, time.Minute)
	wantAll(t, "10,000 events", numbered(10_000, small), takes(all), 1, 5*time.Minute)
	wantAll(t, "5 events of 1 MB", numbered(5, 1_000_000), takes(all), 1, time.Minute)
}

// wantStatus checks an upload that the server ends with an error, on the first
// stream and on the second.
func wantStatus(t *testing.T, how string, s script, want codes.Code, text string) {
	t.Helper()
	for _, events := range [][]*feedv1.Event{numbered(400, large), numbered(10, small), numbered(3, small)} {
		for _, before := range []int{0, 2} {
			if t.Failed() {
				return
			}
			lab.Run(t, func(l *lab.Lab) {
				what, s, list := fmt.Sprintf("%d events, and the server %s", len(events), how), s, events
				if before > 0 {
					what = fmt.Sprintf("%d events, and the server stores %d, says OK, and on the next stream %s", len(events)+before, before, how)
					s, list = then(takes(before), s), append(numbered(before, small), events...)
				}
				f := &feed{script: s}
				client, _ := l.Connect(f)
				stored, err := call(l.Context(), l, f, client, what, list, time.Minute)
				wantFailure(l, what, stored, err, want, before, min(before, 1)+1)
				if !strings.Contains(err.Error(), text) {
					l.Errorf("%s: upload returned the error %v, which has lost the text of the status, %q", what, err, text)
				}
			})
		}
	}
}

var rejection = status.Error(codes.PermissionDenied, "alerts is read-only")

func TestTheStatusOfARejectionReachesTheCaller(t *testing.T) {
	wantStatus(t, "rejects the third", fails(rejection), codes.PermissionDenied, "read-only")
	wantStatus(t, "sends a receipt for 3 and then rejects all", thanksAndFails(rejection), codes.PermissionDenied, "read-only")
}

// TestEveryStatusReachesTheCaller has a text in each status that is not the
// io.EOF of Send.
func TestEveryStatusReachesTheCaller(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		wantStatus(t, fmt.Sprintf(`ends it with %v and the text "EOF"`, code), fails(status.Error(code, "EOF")), code, "EOF")
	}
}

func TestAnEndWithoutAReceiptIsNoSuccess(t *testing.T) {
	wantStatus(t, "ends it with OK and no receipt", fails(nil), codes.Internal, "")
}

func TestTheRestGoesOnAnotherStream(t *testing.T) {
	wantAll(t, "400 large events, 100 a stream", numbered(400, large), takes(100), 4, time.Minute)
	wantAll(t, "10 events, 3 a stream", numbered(10, small), takes(3), 4, time.Minute)
	wantAll(t, "200 events, 1 a stream", numbered(200, small), takes(1), 200, 5*time.Minute)
	wantAll(t, "10 events, and the server reads to the half-close and stores the first 3", numbered(10, small), then(keeps(all, 3), takes(all)), 2, time.Minute)
	wantAll(t, "400 large events, and the server reads 200 and stores the first 3", numbered(400, large), then(keeps(200, 3), takes(all)), 2, time.Minute)
}

func TestAReceiptForNothingIsNoSuccess(t *testing.T) {
	for _, most := range []int{3, all} {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			what := "10 events, and the server stores 2, says OK, and on the next stream stores none and says OK"
			f := &feed{script: then(takes(2), keeps(most, 0))}
			client, _ := l.Connect(f)
			stored, err := call(l.Context(), l, f, client, what, numbered(10, small), time.Minute)
			if err == nil {
				l.Fatalf("%s: upload returned %d and no error, want an error", what, stored)
			}
			wantFailure(l, what, stored, err, status.Code(err), 2, 2)
		})
	}
}

func TestAnEventThatCannotBeSentFailsTheUpload(t *testing.T) {
	const limit = 2 * large
	wrong, huge := &feedv1.Event{Id: "\xff"}, numbered(1, limit)[0]
	for _, tt := range []struct {
		what    string
		events  []*feedv1.Event
		script  script
		want    codes.Code
		stored  int
		streams int
	}{
		{"the third of 3 events is not UTF-8", append(numbered(2, small), wrong), takes(all), codes.Internal, 0, 1},
		{"the third of 3 events is larger than the client may send", append(numbered(2, small), huge), takes(all), codes.ResourceExhausted, 0, 1},
		{"the last of 400 large events is not UTF-8, and the server rejects the third", append(numbered(399, large), wrong), fails(rejection), codes.PermissionDenied, 0, 1},
		{"the last of 400 large events is not UTF-8, and the server has enough after the third", append(numbered(399, large), wrong), then(takes(3), takes(all)), codes.Internal, 3, 2},
	} {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			f := &feed{script: tt.script}
			link := l.NewLink()
			link.Serve(f)
			client := feedv1.NewFeedServiceClient(link.Dial(grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(limit))))
			stored, err := call(l.Context(), l, f, client, tt.what, tt.events, time.Minute)
			wantFailure(l, tt.what, stored, err, tt.want, tt.stored, tt.streams)
		})
	}
}

func TestUploadSetsNoLimitOfItsOwn(t *testing.T) {
	const limit = twoDays + time.Minute
	wantAll(t, "3 events, and the receipt takes two days", numbered(3, small), slowly(takes(all)), 1, limit)
	wantAll(t, "400 large events, and while Send waits the server reads 3, and one more two days later, and says OK for 3", numbered(400, large), then(slowly(keeps(4, 3)), takes(all)), 2, limit)
	wantAll(t, "400 large events, and while Send waits the server reads 3, and all others two days later", numbered(400, large), then(slowly(takes(all)), takes(all)), 1, limit)
}

// An end is what ends an upload after two seconds. It may change the context
// that upload is called with.
type end func(ctx context.Context, link *lab.Link, srv *grpc.Server) (context.Context, context.CancelFunc)

// wantEnd checks that upload ends with it, whatever it waits for.
func wantEnd(t *testing.T, what string, want codes.Code, end end) {
	t.Helper()
	for _, tt := range []struct {
		what    string
		events  []*feedv1.Event
		script  script
		stored  int
		streams int
	}{
		{"3 events, and the server reads all and sends no receipt", numbered(3, small), stays(all), 0, 1},
		{"400 large events, and the server reads 3 while Send waits", numbered(400, large), stays(3), 0, 1},
		{"400 large events, and the server stores 3, says OK, and reads 3 on the next stream", numbered(400, large), then(takes(3), stays(3)), 3, 2},
	} {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			f := &feed{script: tt.script}
			link := l.NewLink()
			srv := link.Serve(f)
			client := feedv1.NewFeedServiceClient(link.Dial())
			ctx, cancel := end(l.Context(), link, srv)
			defer cancel()
			start := time.Now()
			what := fmt.Sprintf("%s; after 2s %s", tt.what, what)
			stored, err := call(ctx, l, f, client, what, tt.events, time.Minute)
			if late := time.Since(start) - 2*time.Second; late > time.Second {
				l.Errorf("%s, and upload returned %v later, want at most 1s", what, late)
			}
			wantFailure(l, what, stored, err, want, tt.stored, tt.streams)
		})
	}
}

func TestTheCancelOfTheCallerHolds(t *testing.T) {
	wantEnd(t, "the caller cancels", codes.Canceled, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(2*time.Second, cancel)
		return ctx, cancel
	})
}

func TestTheDeadlineOfTheCallerHolds(t *testing.T) {
	wantEnd(t, "the deadline passes", codes.DeadlineExceeded, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, 2*time.Second)
	})
}

func TestUploadEndsWhenTheServerDies(t *testing.T) {
	wantEnd(t, "the network is cut", codes.Unavailable, func(ctx context.Context, link *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		time.AfterFunc(2*time.Second, link.Cut)
		return context.WithCancel(ctx)
	})
	// The client's status then reads "error reading from server: EOF".
	wantEnd(t, "the server stops", codes.Unavailable, func(ctx context.Context, _ *lab.Link, srv *grpc.Server) (context.Context, context.CancelFunc) {
		time.AfterFunc(2*time.Second, srv.Stop)
		return context.WithCancel(ctx)
	})
}

func TestUploadSaysThatThereIsNoServer(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		f := &feed{script: takes(all)}
		client, link := l.Connect(f)
		link.Cut()
		time.Sleep(time.Second) // the client has noticed
		start := time.Now()
		what := "the server cannot be reached"
		stored, err := call(l.Context(), l, f, client, what, numbered(3, small), time.Minute)
		if took := time.Since(start); took > time.Second {
			l.Errorf("%s, and upload returned after %v, want at most 1s", what, took)
		}
		wantFailure(l, what, stored, err, codes.Unavailable, 0, 1)
	})
}
