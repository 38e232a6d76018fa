package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// scripted is a feed whose UploadEvents is a function.
type scripted struct {
	feedv1.UnimplementedFeedServiceServer
	upload func(uploadServer) error
}

func (s scripted) UploadEvents(stream uploadServer) error { return s.upload(stream) }

// full is a repo whose n-th insert fails.
func full(n int) (*memory, *server) {
	repo := &memory{max: n - 1}
	return repo, &server{insert: repo.insert}
}

func flushes(d time.Duration, err error) func(context.Context) error {
	return func(context.Context) error { time.Sleep(d); return err }
}

// open opens an upload and sends events on it.
func open(l *lab.Lab, client feedv1.FeedServiceClient, list []*feedv1.Event) feedv1.FeedService_UploadEventsClient {
	l.Helper()
	stream, err := client.UploadEvents(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	for _, ev := range list {
		if err := stream.Send(ev); err != nil {
			l.Fatal(err)
		}
	}
	return stream
}

// isCardinality reports what gRPC calls a wrong number of messages.
func isCardinality(err error) bool {
	return status.Code(err) == codes.Internal && strings.Contains(err.Error(), "cardinality violation")
}

func TestRunLeavesNothingBehind(t *testing.T) {
	lab.EndsWell(t, run)

	// What serve returns waits for a handler that takes its time to end.
	began, ended := make(chan bool), make(chan bool, 1)
	client, end, err := serve(scripted{upload: func(stream uploadServer) error {
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
	if _, err := client.UploadEvents(ctx); err != nil {
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
	// A pace after line 7 the client waits for the handler that flushes, which
	// takes half of one.
	const pace = 50 * time.Millisecond
	got := told(t, 7, pace, pace*5/4)
	if strings.Contains(got, "ancel") {
		t.Errorf("interrupted in a call it said:\n%s", got)
	}
	t.Logf("%d lines; interrupted in a call, it said:\n%s", lines, got)
}

// The recording that the README shows.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo, s := full(3)
		// An insert takes a while, or the half-close arrives as event 3 fails.
		s.insert = func(ctx context.Context, ev *feedv1.Event) error {
			time.Sleep(time.Millisecond)
			return repo.insert(ctx, ev)
		}
		client, link := l.Connect(&hastyServer{*s, flushes(300*time.Millisecond, nil)})
		upload(l.Context(), client, events(1, 2, 4))
		upload(l.Context(), client, events(2, 3, 4))
		if repo.len() != 2 {
			l.Errorf("%d events are stored, want 2", repo.len())
		}
		lab.Golden(t, "wire.txt", link.Ladder())
	})
}

func TestAnUploadIsOneStream(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(&server{insert: (&memory{}).insert})
		if n, err := upload(l.Context(), client, events(1, 3, 10)); n != 3 || err != nil {
			l.Fatalf("upload returned %d, %v, want 3", n, err)
		}
		const want = "client HEADERS, client DATA, client DATA, client DATA, client DATA empty END_STREAM, " +
			"server HEADERS, server DATA, server HEADERS END_STREAM"
		if got := shape(link.Frames()); got != want {
			l.Errorf("the frames are %q, want %q", got, want)
		}
		l.Log(shape(link.Frames()))
	})
	// A frame holds 16 KB (transport/http_util.go, http2MaxFrameLen).
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(&server{insert: (&memory{}).insert})
		if n, err := upload(l.Context(), client, events(1, 1, 20_000)); n != 1 || err != nil {
			l.Fatalf("upload returned %d, %v, want 1", n, err)
		}
		if n := strings.Count(shape(link.Frames()), "client DATA"); n != 3 {
			l.Errorf("one event of 20,000 B and the half-close took %d DATA frames, want 2 and 1: %s", n, shape(link.Frames()))
		}
		l.Logf("one event of 20,000 B: %s", shape(link.Frames()))
	})
}

// shape is who sent which frames.
func shape(frames []lab.Frame) string {
	var texts []string
	for _, f := range frames {
		text := f.From.String() + " " + f.Type
		if f.Length == 0 {
			text += " empty"
		}
		if f.EndStream {
			text += " END_STREAM"
		}
		if f.Stream != frames[0].Stream {
			text += " on another stream"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

func TestTheHandlerRunsFirst(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		began := make(chan time.Time, 1)
		client, _ := l.Connect(scripted{upload: func(stream uploadServer) error {
			began <- time.Now()
			return (&server{}).UploadEvents(stream)
		}})
		start := time.Now()
		stream := open(l, client, nil)
		if after := (<-began).Sub(start); after != lab.Latency {
			l.Errorf("the handler began %v after the opening, want %v", after, lab.Latency)
		}
		receipt, err := stream.CloseAndRecv()
		if receipt.GetReceived() != 0 || err != nil {
			l.Errorf("an upload of nothing returned %s, %v, want a receipt for 0", lab.Text(receipt), err)
		}
		l.Logf("the handler began after one latency, %v, and nothing had been sent", lab.Latency)
	})
}

func TestEventsAreStoredAsTheyCome(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &memory{}
		client, _ := l.Connect(&server{insert: repo.insert})
		stream := open(l, client, nil)
		for i, ev := range events(1, 3, 10) {
			if err := stream.Send(ev); err != nil {
				l.Fatal(err)
			}
			time.Sleep(time.Minute)
			if repo.len() != i+1 {
				l.Errorf("a minute after event %d there are %d stored", i+1, repo.len())
			}
			l.Logf("%v: %d sent, %d stored", l.Elapsed().Round(time.Minute), i+1, repo.len())
		}
		if _, err := stream.CloseAndRecv(); err != nil {
			l.Error(err)
		}
	})
}

func TestRecvReturnsEOFAtTheHalfCloseOnly(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		ended := make(chan error, 2)
		client, _ := l.Connect(scripted{upload: func(stream uploadServer) error {
			_, err := stream.Recv()
			ended <- err
			_, again := stream.Recv()
			ended <- again
			return stream.SendAndClose(&feedv1.UploadResult{})
		}})
		stream := open(l, client, nil)
		time.Sleep(time.Hour) // an idle stream is not over
		if len(ended) > 0 {
			l.Errorf("before the half-close Recv returned %v", <-ended)
		}
		if _, err := stream.CloseAndRecv(); err != nil {
			l.Error(err)
		}
		if first, again := <-ended, <-ended; first != io.EOF || again != io.EOF {
			l.Errorf("at the half-close Recv returned %v and %v, want EOF each time", first, again)
		}

		ctx, cancel := context.WithCancel(l.Context())
		if _, err := client.UploadEvents(ctx); err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Second)
		cancel()
		first, again := <-ended, <-ended
		if status.Code(first) != codes.Canceled || status.Code(again) != codes.Canceled {
			l.Errorf("after a cancel Recv returned %v and %v, want Canceled", first, again)
		}
		l.Logf("half-close: EOF; cancel: %v", first)
	}, lab.Lasts(2*time.Hour))
}

func TestAReturnedEOFBecomesUnknown(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(scripted{upload: func(stream uploadServer) error {
			for {
				if _, err := stream.Recv(); err != nil {
					return err
				}
			}
		}})
		_, err := upload(l.Context(), client, events(1, 3, 10))
		if status.Code(err) != codes.Unknown || status.Convert(err).Message() != "EOF" {
			l.Errorf("the client got %v, want code Unknown and the text EOF", err)
		}
		l.Log(err)
	})
}

func TestNilWithoutAReceiptIsInternal(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &memory{}
		client, link := l.Connect(&silentServer{server{insert: repo.insert}})
		_, err := upload(l.Context(), client, events(1, 3, 10))
		if !isCardinality(err) || repo.len() != 3 {
			l.Errorf("the client got %v with %d stored, want Internal, a cardinality violation, with 3 stored", err, repo.len())
		}
		frames := link.Frames()
		last := frames[len(frames)-1]
		if last.From != lab.Server || last.Field("grpc-status") != "0" {
			l.Errorf("the last frame is %s %s, want the server's status 0", last.Type, last.Text)
		}
		l.Logf("the server sent grpc-status %s, the client says: %v", last.Field("grpc-status"), err)
	})
}

// twice sends the receipt twice.
func twice(stream uploadServer) error {
	stored, err := (&server{insert: (&memory{}).insert}).insertAll(stream)
	if err != nil {
		return err
	}
	receipt := &feedv1.UploadResult{Received: stored}
	return errors.Join(stream.SendAndClose(receipt), stream.SendAndClose(receipt))
}

func TestASecondReceiptIsInternal(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var handler error
		client, link := l.Connect(scripted{upload: func(stream uploadServer) error {
			handler = twice(stream)
			return handler
		}})
		_, err := upload(l.Context(), client, events(1, 3, 10))
		if !isCardinality(err) {
			l.Errorf("the client got %v, want Internal, a cardinality violation", err)
		}
		// The client's cancel at the end may still find the stream open, and resets it then.
		got := strings.TrimSuffix(shape(link.Frames()), ", client RST_STREAM")
		if !strings.HasSuffix(got, "server DATA, server DATA, server HEADERS END_STREAM") || handler != nil {
			l.Errorf("the handler saw %v and the frames are %s, want no error and both receipts on the wire", handler, got)
		}
		l.Log(err)
	})
}

func TestASecondReceiptLeavesTheStreamOpen(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(scripted{upload: twice})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream, err := client.UploadEvents(ctx)
		if err != nil {
			l.Fatal(err)
		}
		_, err = stream.CloseAndRecv()
		leaks := strings.Join(l.Leaks(), "; ")
		if err == nil || !strings.Contains(leaks, "1 of 1 RPCs never ended") {
			l.Errorf("CloseAndRecv returned %v and the leaks are %q, want an error and a stream that is open", err, leaks)
		}
		cancel()
		if after := l.Leaks(); len(after) > 0 {
			l.Errorf("after the cancel: %q", after)
		}
		l.Logf("CloseAndRecv returned code %v; until the cancel: %s", status.Code(err), leaks)
	})
}

func TestSendAndCloseDoesNotClose(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const work = 300 * time.Millisecond
		client, link := l.Connect(&hastyServer{server{insert: (&memory{}).insert}, flushes(work, nil)})
		start := time.Now()
		n, err := upload(l.Context(), client, events(1, 3, 10))
		if took := time.Since(start); n != 3 || err != nil || took != 2*lab.Latency+work {
			l.Errorf("upload returned %d, %v after %v, want 3 after a round trip and %v", n, err, took, work)
		}
		var sent time.Duration
		for _, f := range link.Frames() {
			if f.From == lab.Server && f.Type == "DATA" {
				sent = f.At
			}
		}
		if sent != lab.Latency {
			l.Errorf("the receipt was sent at %v, want at %v", sent, lab.Latency)
		}
		l.Logf("the receipt was sent at %v, CloseAndRecv returned it at %v", sent, time.Since(start))
	})
}

func TestALaterErrorDiscardsTheReceipt(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &memory{}
		client, link := l.Connect(&hastyServer{
			server{insert: repo.insert},
			flushes(0, status.Error(codes.DataLoss, "flush failed")),
		})
		stream := open(l, client, events(1, 3, 10))
		receipt, err := stream.CloseAndRecv()
		if receipt != nil || status.Code(err) != codes.DataLoss {
			l.Errorf("CloseAndRecv returned %s, %v, want no receipt and DataLoss", lab.Text(receipt), err)
		}
		const want = "server HEADERS, server DATA, server HEADERS END_STREAM"
		if got := shape(link.Frames()); !strings.HasSuffix(got, want) {
			l.Errorf("the frames are %s, want the receipt among them", got)
		}
		l.Logf("the receipt arrived, and CloseAndRecv returned: %v", err)
	})
}

func TestSendMsgPutsTheSameOnTheWire(t *testing.T) {
	var ladders [2]string
	for i := range ladders {
		lab.Run(t, func(l *lab.Lab) {
			s := &server{insert: (&memory{}).insert}
			client, link := l.Connect(scripted{upload: func(stream uploadServer) error {
				stored, err := s.insertAll(stream)
				if err != nil {
					return err
				}
				receipt := &feedv1.UploadResult{Received: stored}
				if i == 0 {
					return stream.SendAndClose(receipt)
				}
				return stream.SendMsg(receipt)
			}})
			if n, err := upload(l.Context(), client, events(1, 3, 10)); n != 3 || err != nil {
				l.Errorf("upload returned %d, %v", n, err)
			}
			ladders[i] = link.Ladder()
		})
	}
	if ladders[0] != ladders[1] {
		t.Errorf("SendAndClose:\n%sSendMsg:\n%s", ladders[0], ladders[1])
	}
	if m, ok := reflect.TypeFor[uploadServer]().MethodByName("Send"); ok {
		t.Errorf("the handler's stream has the method Send%v", m.Type)
	}
	t.Logf("both:\n%s", ladders[1])
}

func TestASecondCloseAndRecvReturnsEOF(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		_, s := full(4)
		client, _ := l.Connect(s)
		stream := open(l, client, events(1, 3, 10))
		receipt, err := stream.CloseAndRecv()
		if receipt.GetReceived() != 3 || err != nil {
			l.Errorf("the first CloseAndRecv returned %s, %v, want 3", lab.Text(receipt), err)
		}
		if receipt, err := stream.CloseAndRecv(); receipt != nil || err != io.EOF {
			l.Errorf("the second CloseAndRecv returned %s, %v, want EOF", lab.Text(receipt), err)
		}

		stream = open(l, client, events(4, 4, 10))
		_, first := stream.CloseAndRecv()
		_, second := stream.CloseAndRecv()
		if status.Code(first) != codes.Internal || second.Error() != first.Error() {
			l.Errorf("after a failure they returned %v and %v, want the status twice", first, second)
		}
		l.Logf("a receipt, then EOF; or %v, and that again", status.Code(first))
	})
}

func TestTheReceiptCountsWhatWasStored(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &memory{}
		client, _ := l.Connect(&server{insert: repo.insert})
		var got []int32
		for _, list := range [][]*feedv1.Event{events(1, 3, 10), events(2, 4, 10), events(1, 4, 10)} {
			n, err := upload(l.Context(), client, list)
			if err != nil {
				l.Fatal(err)
			}
			got = append(got, n)
		}
		if fmt.Sprint(got) != "[3 1 0]" || repo.len() != 4 {
			l.Errorf("the receipts say %v with %d stored, want 3, 1, 0 with 4 stored", got, repo.len())
		}
		l.Logf("1–3, 2–4 and 1–4 were sent, the receipts say %v", got)
	})
}

func TestAFailureLosesTheReceiptNotTheEvents(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo, s := full(3)
		client, _ := l.Connect(s)
		n, err := upload(l.Context(), client, events(1, 5, 10))
		if n != 0 || status.Code(err) != codes.Internal || repo.len() != 2 {
			l.Errorf("upload returned %d, %v with %d stored, want Internal with 2 stored", n, err, repo.len())
		}
		l.Logf("%v; %d are stored", err, repo.len())

		repo.limit(0) // somebody makes room
		n, err = upload(l.Context(), client, events(1, 5, 10))
		if n != 3 || err != nil || repo.len() != 5 {
			l.Errorf("all again: %d, %v with %d stored, want 3 with 5 stored", n, err, repo.len())
		}
		l.Logf("all again: received %d; %d are stored", n, repo.len())
	})
}

func TestACancelLeavesWhatIsStored(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo := &memory{}
		ended := make(chan error, 1)
		client, _ := l.Connect(scripted{upload: func(stream uploadServer) error {
			err := (&server{insert: repo.insert}).UploadEvents(stream)
			ended <- err
			return err
		}})
		ctx, cancel := context.WithCancel(l.Context())
		stream, err := client.UploadEvents(ctx)
		if err != nil {
			l.Fatal(err)
		}
		for _, ev := range events(1, 2, 10) {
			if err := stream.Send(ev); err != nil {
				l.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		cancel()
		if err := <-ended; status.Code(err) != codes.Canceled || repo.len() != 2 {
			l.Errorf("the handler ended with %v and %d stored, want Canceled and 2", err, repo.len())
		}
		l.Logf("the handler ended with Canceled, %d are stored", repo.len())
	})
}

func TestAClientThatLeftIsNoFaultOfTheServer(t *testing.T) {
	for _, want := range []codes.Code{codes.Canceled, codes.DeadlineExceeded} {
		lab.Run(t, func(l *lab.Lab) {
			returned := make(chan error, 1)
			s := &server{insert: func(ctx context.Context, _ *feedv1.Event) error {
				<-ctx.Done()
				return errors.New("the query was interrupted")
			}}
			client, _ := l.Connect(scripted{upload: func(stream uploadServer) error {
				ctx := stream.Context()
				if want == codes.DeadlineExceeded {
					// One that the server sets itself, and that no reset overtakes.
					bounded, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
					defer cancel()
					ctx = bounded
				}
				err := s.UploadEvents(within{stream, ctx})
				returned <- err
				return err
			}})
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			time.AfterFunc(time.Second, cancel)
			_, err := upload(ctx, client, events(1, 1, 10))
			got := <-returned
			if status.Code(got) != want {
				l.Errorf("the handler returned %v, want %v", got, want)
			}
			l.Logf("the handler returned %v, the client has %v", got, err)
		})
	}
}

// within is a stream with another context, as an interceptor makes it.
type within struct {
	uploadServer
	ctx context.Context
}

func (w within) Context() context.Context { return w.ctx }

func TestSendKnowsOnlyThatTheStreamIsOver(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		_, s := full(2)
		client, _ := l.Connect(s)
		stream := open(l, client, nil)
		var err error
		sent := 0
		for ; err == nil; sent++ {
			err = stream.Send(events(sent+1, sent+1, 1000)[0])
		}
		if err != io.EOF {
			l.Errorf("Send returned %v, want EOF", err)
		}
		_, reason := stream.CloseAndRecv()
		if status.Code(reason) != codes.Internal || status.Convert(reason).Message() != "event not stored" {
			l.Errorf("CloseAndRecv returned %v, want the handler's status", reason)
		}
		l.Logf("Send %d: %v; CloseAndRecv: %v", sent, err, reason)
	})
}

func TestWhoStopsAtTheEOFLeavesTheStreamOpen(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		_, s := full(2)
		client, _ := l.Connect(s)
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		_, err := uploadReturningEOF(ctx, client, events(1, 1000, 1000))
		leaks := strings.Join(l.Leaks(), "; ")
		if err != io.EOF || !strings.Contains(leaks, "1 of 1 RPCs never ended") {
			l.Errorf("it returned %v and the leaks are %q, want EOF and a stream that is open", err, leaks)
		}
		cancel()
		_, err = upload(l.Context(), client, events(1, 1000, 1000))
		if after := l.Leaks(); status.Code(err) != codes.Internal || len(after) > 0 {
			l.Errorf("upload returned %v and leaves %q, want Internal and nothing", err, after)
		}
		l.Logf("error EOF, and %s; upload: %v, and nothing is left", leaks, err)
	})
}

func TestAFailureCanComeAfterTheLastSend(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		_, s := full(3)
		client, _ := l.Connect(s)
		stream := open(l, client, events(1, 3, 10)) // not one Send fails
		_, err := stream.CloseAndRecv()
		if status.Code(err) != codes.Internal {
			l.Errorf("CloseAndRecv returned %v, want Internal", err)
		}
		l.Logf("three Sends returned nil, CloseAndRecv: %v", err)
	})
}

func TestCloseSendLearnsNothing(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		repo, s := full(2)
		client, _ := l.Connect(s)
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		start := time.Now()
		err := uploadWithoutReceipt(ctx, client, events(1, 3, 10))
		took, stored := time.Since(start), repo.len()
		if err != nil || took != 0 || stored != 0 {
			l.Errorf("it returned %v after %v with %d stored, want nil at once with nothing stored", err, took, stored)
		}
		leaks := strings.Join(l.Leaks(), "; ")
		if !strings.Contains(leaks, "1 of 1 RPCs never ended") || repo.len() != 1 {
			l.Errorf("a second later %d are stored and the leaks are %q, want 1 and a stream that is open", repo.len(), leaks)
		}
		l.Logf("error %v after %v with %d of 3 stored; a second later %d stored, and %s", err, took, stored, repo.len(), leaks)
	})
}

func TestASlowServerMakesSendWait(t *testing.T) {
	for _, tt := range []struct {
		windows string
		want    int
		opts    []lab.LinkOption
	}{
		{"fixed windows of 65,535 B", 129, nil},
		{"grpc-go's default windows", 193, []lab.LinkOption{lab.WithBDP()}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, link := l.Connect(scripted{upload: func(stream uploadServer) error {
				select {
				case <-time.After(time.Hour):
				case <-stream.Context().Done():
				}
				return (&server{insert: (&memory{}).insert}).UploadEvents(stream)
			}}, tt.opts...)
			start := time.Now()
			stream := open(l, client, nil)
			passed := 0
			ev := events(1, 1, 1000)[0]
			for time.Since(start) < time.Minute {
				if err := stream.Send(ev); err != nil {
					l.Fatal(err)
				}
				if time.Since(start) < time.Minute {
					passed++
				}
			}
			if took := time.Since(start); passed != tt.want || took != time.Hour+2*lab.Latency {
				l.Errorf("%s: %d Sends passed and the next returned after %v, want %d, and an hour and a round trip",
					tt.windows, passed, took, tt.want)
			}
			if f := link.Frames()[1]; f.Type != "DATA" || f.Length != 1019 {
				l.Errorf("the first event is %s with %d B on the wire, want 1,019 B", f.Type, f.Length)
			}
			l.Logf("%s: %d Sends passed, the next returned after %v", tt.windows, passed, time.Since(start))
			if _, err := stream.CloseAndRecv(); err != nil {
				l.Error(err)
			}
		}, lab.Lasts(2*time.Hour))
	}
}
