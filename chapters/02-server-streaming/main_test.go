package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// every is the time between two events, off the grid of the latency.
const every = 20 * time.Millisecond

func newSource() *source { return &source{every: every, over: make(chan struct{})} }

func newServer() *server { return &server{subscribe: newSource().subscribe} }

// One type under two names: what takes the one takes the other, also in a
// signature, where types must be identical.
var _ func(feedv1.FeedService_WatchServer) error = func(watchServer) error { return nil }

// scripted is a server whose Watch is a function.
type scripted struct {
	feedv1.UnimplementedFeedServiceServer
	watch func(watchServer) error
}

func (s *scripted) Watch(_ *feedv1.WatchRequest, stream watchServer) error { return s.watch(stream) }

func TestRunLeavesNothingBehind(t *testing.T) {
	lab.EndsWell(t, run)

	// What serve returns waits for a handler that takes its time to end.
	began, ended := make(chan bool), make(chan bool, 1)
	client, end, err := serve(&scripted{watch: func(stream watchServer) error {
		close(began)
		<-stream.Context().Done()
		time.Sleep(20 * time.Millisecond)
		ended <- true
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := client.Watch(ctx, &feedv1.WatchRequest{}); err != nil {
		t.Fatal(err)
	}
	<-began
	end()
	if len(ended) == 0 {
		t.Error("the server was stopped, and a handler still ran")
	}
}

// reader is who runs the program. With the given line in hand, and after some
// more time, the reader presses Ctrl-C.
type reader struct {
	text  strings.Builder
	line  int
	after time.Duration
	leave func()
}

func (r *reader) Write(b []byte) (int, error) {
	r.text.Write(b)
	switch lines := strings.Count(r.text.String(), "\n"); {
	case lines != r.line:
	case r.after > 0:
		time.AfterFunc(r.after, r.leave)
	default:
		r.leave()
	}
	return len(b), nil
}

// told is what run tells such a reader.
func told(t *testing.T, line int, pace, after time.Duration) string {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &reader{line: line, after: after, leave: cancel}
	run(ctx, r, pace)
	return r.text.String()
}

func TestAnInterruptedRunSaysNoMore(t *testing.T) {
	lines := strings.Count(told(t, 0, 0, 0), "\n")
	for line := 1; line <= lines; line++ {
		if got := told(t, line, 0, 0); strings.Count(got, "\n") != line {
			t.Errorf("interrupted at line %d of %d it said:\n%s", line, lines, got)
		}
	}
	// The first call begins a pace after line 1 and takes three fifths of one.
	const pace = 50 * time.Millisecond
	got := told(t, 1, pace, pace*13/10)
	if strings.Contains(got, "ancel") {
		t.Errorf("interrupted in a call it said:\n%s", got)
	}
	t.Logf("%d lines; interrupted in a call, it said:\n%s", lines, got)
}

// The recording that the README shows.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		src := newSource()
		k := l.NewLink()
		k.Serve(&server{subscribe: func(topic string) *subscription {
			k.Note(lab.Server, "Watch is called")
			return src.subscribe(topic)
		}})
		_, err := collect(l.Context(), feedv1.NewFeedServiceClient(k.Dial()), "deploys")
		if err != nil {
			l.Fatal(err)
		}
		k.Note(lab.Client, "Recv returns io.EOF")
		lab.Golden(t, "wire.txt", k.Ladder())
	})
}

// frames names the frames of a link, each with its sender.
func frames(k *lab.Link) string {
	var all []string
	for _, f := range k.Frames() {
		text := f.From.String() + " " + f.Type
		if f.EndStream {
			text += " END_STREAM"
		}
		if f.Stream != k.Frames()[0].Stream {
			text += " on another stream"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func TestTheWholeFeedIsOneStream(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(newServer())
		if _, err := collect(l.Context(), client, "deploys"); err != nil {
			l.Fatal(err)
		}
		const want = "client HEADERS, client DATA END_STREAM, " +
			"server HEADERS, server DATA, server DATA, server DATA, server HEADERS END_STREAM"
		if got := frames(link); got != want {
			l.Errorf("the frames are %q, want %q", got, want)
		}
		l.Log(frames(link))
	})
	// A frame holds 16 KB (transport/http_util.go, http2MaxFrameLen).
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(&scripted{watch: func(stream watchServer) error {
			return stream.Send(&feedv1.Event{Body: strings.Repeat("x", 20_000)})
		}})
		if _, err := collect(l.Context(), client, ""); err != nil {
			l.Fatal(err)
		}
		if n := strings.Count(frames(link), "server DATA"); n != 2 {
			l.Errorf("one event of 20,000 B took %d DATA frames, want 2: %s", n, frames(link))
		}
		l.Logf("one event of 20,000 B: %s", frames(link))
	})
}

func TestHeadersTravelWithTheFirstEvent(t *testing.T) {
	for _, early := range []bool{false, true} {
		lab.Run(t, func(l *lab.Lab) {
			s := newServer()
			client, link := l.Connect(&scripted{watch: func(stream watchServer) error {
				if early {
					if err := stream.SendHeader(nil); err != nil {
						return err
					}
				}
				return s.Watch(&feedv1.WatchRequest{Topic: "deploys"}, stream)
			}})
			if _, err := collect(l.Context(), client, ""); err != nil {
				l.Fatal(err)
			}
			var at []time.Duration
			for _, f := range link.Frames() {
				if f.From == lab.Server {
					at = append(at, f.At)
				}
			}
			event := lab.Latency + every // the request arrives, the first event happens
			headers := event
			if early {
				headers = lab.Latency
			}
			if len(at) < 2 || at[0] != headers || at[1] != event {
				l.Fatalf("SendHeader %t: the server's frames left at %v, want the first two at %v and %v", early, at, headers, event)
			}
			l.Logf("Watch is called at %v; SendHeader %t: HEADERS leave at %v, the first DATA at %v", lab.Latency, early, at[0], at[1])
		})
	}
}

// raw opens Watch without the generated code. A description that allows many
// requests keeps gRPC from half-closing after the first one.
func raw(l *lab.Lab, k *lab.Link, many bool) grpc.ClientStream {
	l.Helper()
	desc := &grpc.StreamDesc{StreamName: "Watch", ServerStreams: true, ClientStreams: many}
	stream, err := k.Dial().NewStream(l.Context(), desc, feedv1.FeedService_Watch_FullMethodName)
	if err != nil {
		l.Fatal(err)
	}
	return stream
}

func TestTheHandlerStartsAfterTheHalfClose(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		called := make(chan time.Time, 1)
		k := l.NewLink()
		k.Serve(&scripted{watch: func(watchServer) error { called <- time.Now(); return nil }})
		stream := raw(l, k, true)
		if err := stream.SendMsg(&feedv1.WatchRequest{Topic: "deploys"}); err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Hour)
		select {
		case at := <-called:
			l.Fatalf("Watch was called %v before the half-close", time.Since(at))
		default:
		}
		closed := time.Now()
		if err := stream.CloseSend(); err != nil {
			l.Fatal(err)
		}
		if late := (<-called).Sub(closed); late != lab.Latency {
			l.Errorf("Watch was called %v after the half-close, want the latency, %v", late, lab.Latency)
		}
		if err := stream.RecvMsg(new(feedv1.Event)); !errors.Is(err, io.EOF) {
			l.Errorf("RecvMsg returned %v, want io.EOF", err)
		}
		l.Logf("no call for an hour, then one latency after the half-close: %s", frames(k))
	}, lab.Lasts(2*time.Hour))
}

// The client's SendMsg half-closes unless the description says that the client
// streams (stream.go, clientStreamWrapper.SendMsg; that the END_STREAM rides on
// the DATA: csAttempt.sendMsg).
func TestTheHalfCloseRidesOnTheRequest(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		generated, link := l.Connect(newServer())
		collect(l.Context(), generated, "deploys")

		k := l.NewLink()
		k.Serve(newServer())
		stream := raw(l, k, false)
		if err := stream.SendMsg(&feedv1.WatchRequest{Topic: "deploys"}); err != nil {
			l.Fatal(err)
		}
		for stream.RecvMsg(new(feedv1.Event)) == nil {
		}
		const want = "client HEADERS, client DATA END_STREAM, server"
		for _, k := range []*lab.Link{link, k} {
			if got := frames(k); !strings.HasPrefix(got, want) {
				l.Errorf("the frames are %q, want them to begin with %q", got, want)
			}
		}
		l.Logf("by generated code and by hand, without a CloseSend: %s", frames(k))

		k = l.NewLink()
		k.Serve(newServer())
		stream = raw(l, k, true)
		if err := stream.SendMsg(&feedv1.WatchRequest{Topic: "deploys"}); err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := frames(k); got != "client HEADERS, client DATA" {
			l.Errorf("a client that may stream has sent %q, want no END_STREAM", got)
		}
		l.Logf("described as streaming: %s", frames(k))
		stream.CloseSend()
		for stream.RecvMsg(new(feedv1.Event)) == nil {
		}
	})
}

func TestExactlyOneRequestIsAllowed(t *testing.T) {
	for _, tt := range []struct {
		n    int
		want string
	}{
		{0, "received no request message"},
		{2, "received multiple request messages"},
	} {
		lab.Run(t, func(l *lab.Lab) {
			k := l.NewLink()
			k.Serve(&scripted{watch: func(watchServer) error {
				l.Errorf("Watch was called for %d requests", tt.n)
				return nil
			}})
			stream := raw(l, k, true)
			for range tt.n {
				stream.SendMsg(&feedv1.WatchRequest{Topic: "deploys"})
			}
			stream.CloseSend()
			err := stream.RecvMsg(new(feedv1.Event))
			if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), tt.want) {
				l.Errorf("for %d requests the client got %v, want Internal: %s", tt.n, err, tt.want)
			}
			l.Logf("%d requests: %v", tt.n, err)
		})
	}
}

func TestEventsArriveOneByOneAndInOrder(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const n = 1000
		client, _ := l.Connect(&scripted{watch: func(stream watchServer) error {
			for i := range n {
				time.Sleep(every)
				if err := stream.Send(&feedv1.Event{Id: strconv.Itoa(i)}); err != nil {
					return err
				}
			}
			return nil
		}})
		start := time.Now()
		stream, err := client.Watch(l.Context(), &feedv1.WatchRequest{})
		if err != nil {
			l.Fatal(err)
		}
		for i := range n {
			ev, err := stream.Recv()
			if err != nil || ev.GetId() != strconv.Itoa(i) {
				l.Fatalf("Recv %d returned id %q, %v", i, ev.GetId(), err)
			}
			want := 2*lab.Latency + time.Duration(i+1)*every
			if took := time.Since(start); took != want {
				l.Fatalf("event %d arrived after %v, want %v", i, took, want)
			}
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			l.Errorf("after the last event Recv returned %v, want io.EOF", err)
		}
		l.Logf("%d events in order, each %v after its Send; all of them in %v", n, lab.Latency, time.Since(start))
	})
}

func TestNilIsEOFAtTheClient(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(newServer())
		events, err := collect(l.Context(), client, "deploys")
		if len(events) != 3 || err != nil {
			l.Errorf("collect returned %d events and %v, want 3 and no error", len(events), err)
		}
		last := link.Frames()[len(link.Frames())-1]
		if last.Field("grpc-status") != "0" || !last.EndStream {
			l.Errorf("the last frame is %s %s, want the trailers with grpc-status 0", last.Type, last.Text)
		}
		l.Logf("the last frame: %s %s", last.Type, last.Text)
	})
}

func TestEOFComesAfterTheLastEventAndAgain(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(newServer())
		stream, err := client.Watch(l.Context(), &feedv1.WatchRequest{Topic: "deploys"})
		if err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Hour) // the status has been here for an hour
		var got []string
		for range 5 {
			ev, err := stream.Recv()
			if err != nil {
				got = append(got, err.Error())
			} else {
				got = append(got, ev.GetBody())
			}
		}
		if want := []string{"started", "halfway", "done", "EOF", "EOF"}; !slices.Equal(got, want) {
			l.Errorf("an hour after the end five Recvs returned %q, want %q", got, want)
		}
		l.Logf("an hour after the end: %q", got)
	}, lab.Lasts(2*time.Hour))
}

func TestAnErrorComesAfterTheEventsBeforeIt(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(newServer())
		events, err := collect(l.Context(), client, "broken")
		if len(events) != 2 || status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "the topic moved" {
			l.Errorf("collect returned %d events and %v, want 2 and the handler's Unavailable", len(events), err)
		}
		l.Logf("%d events, then %v", len(events), err)
	})
}

func TestOpeningDoesNotWaitForTheServer(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(newServer())
		start := time.Now()
		stream, err := client.Watch(l.Context(), &feedv1.WatchRequest{Topic: "refused"})
		if took := time.Since(start); took != 0 || err != nil {
			l.Fatalf("Watch returned %v after %v, want no error at once", err, took)
		}
		_, err = stream.Recv()
		if took := time.Since(start); took != 2*lab.Latency || status.Code(err) != codes.PermissionDenied {
			l.Errorf("Recv returned %v after %v, want PermissionDenied after a round trip, %v", err, took, 2*lab.Latency)
		}
		l.Logf("Watch: no error at 0s; Recv: %v at %v", err, time.Since(start))
	})
}

func TestOpeningNeedsAConnectionWithRoom(t *testing.T) {
	open := func(l *lab.Lab, conn *grpc.ClientConn) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{Topic: "silent"})
		return time.Since(start), err
	}
	for _, tt := range []struct {
		what string
		make func(*lab.Lab, *lab.Link) *grpc.ClientConn
		took time.Duration
		want codes.Code
	}{
		{"on a full connection", func(l *lab.Lab, k *lab.Link) *grpc.ClientConn {
			k.Serve(newServer(), grpc.MaxConcurrentStreams(1))
			conn := k.Dial()
			ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
			time.AfterFunc(time.Minute, cancel)
			if _, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{Topic: "silent"}); err != nil {
				l.Fatal(err)
			}
			return conn
		}, time.Second, codes.DeadlineExceeded},
		{"after a cut", func(_ *lab.Lab, k *lab.Link) *grpc.ClientConn {
			k.Serve(newServer())
			conn := k.Dial()
			k.Cut()
			time.Sleep(time.Millisecond) // the client learns of it
			return conn
		}, 2 * lab.Latency, codes.Unavailable}, // the dial that is refused
		{"on an idle channel", func(_ *lab.Lab, k *lab.Link) *grpc.ClientConn {
			k.Serve(newServer())
			conn := k.Dial(grpc.WithIdleTimeout(time.Second))
			time.Sleep(time.Minute)
			return conn
		}, 3 * lab.Latency, codes.OK}, // the dial, and the server's SETTINGS
	} {
		lab.Run(t, func(l *lab.Lab) {
			conn := tt.make(l, l.NewLink())
			took, err := open(l, conn)
			if took != tt.took || status.Code(err) != tt.want {
				l.Errorf("%s Watch returned %v after %v, want %v after %v", tt.what, err, took, tt.want, tt.took)
			}
			l.Logf("%s Watch returned %v after %v", tt.what, err, took)
			time.Sleep(2 * time.Minute)
		})
	}
}

func TestReturningEOFIsAnUnknownError(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&eofServer{*newServer()})
		events, err := collect(l.Context(), client, "deploys")
		if len(events) != 3 || status.Code(err) != codes.Unknown || errors.Is(err, io.EOF) {
			l.Errorf("collect returned %d events and %v, want 3 and an Unknown that is not io.EOF", len(events), err)
		}
		l.Logf("%d events, then %v", len(events), err)
	})
}

func TestTheSecondResultOfReceiveTellsTheEnd(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&zeroServer{*newServer()})
		start := time.Now()
		events, err := first(l.Context(), client, "deploys", 1003)
		if len(events) != 1003 || empty(events) != 1000 || err != nil {
			l.Fatalf("1,003 events were asked for: %d came, %d of them empty, then %v; want 1,000 empty ones", len(events), empty(events), err)
		}
		if took, want := time.Since(start), 2*lab.Latency+3*every; took != want {
			l.Errorf("they came within %v, want %v, the time of the third event", took, want)
		}
		l.Logf("without it: 3 events, then 1,000 empty ones at one instant, %v", time.Since(start))
	})
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(newServer())
		start := time.Now()
		events, err := first(l.Context(), client, "deploys", 1003)
		if len(events) != 3 || empty(events) != 0 || !errors.Is(err, io.EOF) {
			l.Errorf("%d events came, %d of them empty, then %v; want 3 and io.EOF", len(events), empty(events), err)
		}
		l.Logf("with it: %d events, then %v at %v", len(events), err, time.Since(start))
	})
}

func TestOnlyTheTopicsEndClosesItsEvents(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		for _, topic := range []string{"deploys", "silent"} {
			src := newSource()
			sub := src.subscribe(topic)
			sub.close()
			sub.close()
			if n := src.places.Load(); n != 0 {
				l.Errorf("a place at %q was taken, and given back twice: %d are taken", topic, n)
			}
			select {
			case ev, ok := <-sub.events:
				l.Errorf("the place at %q was given back, and its events yield %s, %t", topic, lab.Text(ev), ok)
			case <-time.After(time.Minute):
			}
		}

		sub := newSource().subscribe("broken")
		n := 0
		for range sub.events {
			n++
		}
		if n != 2 || status.Code(sub.err) != codes.Unavailable {
			l.Errorf("the topic ended after %d events with %v, want 2 and Unavailable", n, sub.err)
		}
		sub.close()
		l.Logf("given back twice: its events stay open; ended: they are closed after %d, and err is %v", n, sub.err)
	})
}

func TestADeafHandlerOutlivesItsClient(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		src := newSource()
		client, _ := l.Connect(&deafServer{server{subscribe: src.subscribe}})
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		collect(ctx, client, "silent")
		time.Sleep(time.Hour)
		if n := src.places.Load(); n != 1 {
			l.Errorf("an hour after the client left %d places are taken, want the deaf handler's", n)
		}
		l.Logf("an hour after the client left %d place is taken", src.places.Load())
		close(src.over) // the topic ends, at last
	}, lab.Lasts(2*time.Hour))
}

func TestTheHandlerEndsWithItsClient(t *testing.T) {
	// What ends the stream after a second, and how long the handler takes to hear of it.
	for _, tt := range []struct {
		how  string
		late time.Duration
	}{
		{"the client cancels", lab.Latency},
		{"the deadline passes", lab.Latency},
		{"the network is cut", 0},
	} {
		lab.Run(t, func(l *lab.Lab) {
			src := newSource()
			ended := make(chan time.Time, 1)
			client, link := l.Connect(&server{subscribe: func(topic string) *subscription {
				sub := src.subscribe(topic)
				inner := sub.close
				sub.close = func() { inner(); ended <- time.Now() }
				return sub
			}})
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			start := time.Now()
			switch tt.how {
			case "the client cancels":
				time.AfterFunc(time.Second, cancel)
			case "the deadline passes":
				ctx, cancel = context.WithTimeout(ctx, time.Second)
				defer cancel()
			case "the network is cut":
				time.AfterFunc(time.Second, link.Cut)
			}
			_, err := collect(ctx, client, "silent")
			if err == nil {
				l.Errorf("%s, and collect returned no error", tt.how)
			}
			if late := (<-ended).Sub(start) - time.Second; late != tt.late {
				l.Errorf("%s, and Watch ended %v later, want %v", tt.how, late, tt.late)
			}
			l.Logf("%s: Watch ends %v later, the client has %v", tt.how, tt.late, status.Code(err))
		})
	}
}

func TestIgnoringTheErrorHidesTheGap(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(newServer())
		time.AfterFunc(50*time.Millisecond, link.Cut) // one event has arrived
		if n := len(collectIgnoringErrors(l.Context(), client, "deploys")); n != 1 {
			l.Errorf("collectIgnoringErrors returned %d events, want one of three", n)
		}
		link.Heal()
		time.Sleep(time.Minute)
		time.AfterFunc(50*time.Millisecond, link.Cut)
		events, err := collect(l.Context(), client, "deploys")
		if len(events) != 1 || status.Code(err) != codes.Unavailable {
			l.Errorf("collect returned %d events and %v, want one and Unavailable", len(events), err)
		}
		l.Logf("of 3 events: 1 and no error; 1 and %v", status.Code(err))
	})
}

func TestSendWaitsForASlowClient(t *testing.T) {
	for _, tt := range []struct {
		windows string
		want    int
		opts    []lab.LinkOption
	}{
		{"fixed windows of 65,535 B", 131, nil},
		{"grpc-go's default windows", 196, []lab.LinkOption{lab.WithBDP()}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			body := strings.Repeat("x", 1000) // 1,008 B on the wire
			sent := make(chan int, 1000)
			client, link := l.Connect(&scripted{watch: func(stream watchServer) error {
				for i := range 1000 {
					if err := stream.Send(&feedv1.Event{Body: body}); err != nil {
						return err
					}
					sent <- i
				}
				return nil
			}}, tt.opts...)
			stream, err := client.Watch(l.Context(), &feedv1.WatchRequest{})
			if err != nil {
				l.Fatal(err)
			}
			time.Sleep(time.Hour)
			before := len(sent)
			if before != tt.want {
				l.Errorf("%s, and the client has not read for an hour: %d Sends have returned, want %d", tt.windows, before, tt.want)
			}
			for _, f := range link.Frames() {
				if f.From == lab.Server && f.Type == "DATA" {
					if f.Length != 1008 {
						l.Errorf("the first event has %d B on the wire, want 1,008 B", f.Length)
					}
					break
				}
			}
			n := 0
			for ; err == nil; n++ {
				_, err = stream.Recv()
			}
			if n != 1001 || !errors.Is(err, io.EOF) {
				l.Errorf("then it reads: %d Recvs and %v, want 1,000 events and io.EOF", n, err)
			}
			l.Logf("%s: %d of 1,000 Sends in an hour without a Recv, then %d events", tt.windows, before, n-1)
		}, lab.Lasts(2*time.Hour))
	}
}
