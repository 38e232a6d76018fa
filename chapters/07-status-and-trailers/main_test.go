package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

type (
	chatServer   = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]
	uploadServer = grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]
)

// scripted is a server whose handlers are functions.
type scripted struct {
	feedv1.UnimplementedFeedServiceServer
	watch  func(*feedv1.WatchRequest, watchServer) error
	upload func(uploadServer) error
	chat   func(chatServer) error
}

func (s scripted) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	return s.watch(req, stream)
}
func (s scripted) UploadEvents(stream uploadServer) error { return s.upload(stream) }
func (s scripted) Chat(stream chatServer) error           { return s.chat(stream) }

// returns is a server whose Watch returns err at once.
func returns(err error) scripted {
	return scripted{watch: func(*feedv1.WatchRequest, watchServer) error { return err }}
}

// behind is a feed that another server has.
func behind(client feedv1.FeedServiceClient) relay {
	return relay{open: func(ctx context.Context, topic string) (next, error) {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		if err != nil {
			return nil, err
		}
		return func(context.Context) (*feedv1.Event, error) { return stream.Recv() }, nil
	}}
}

// got is what a client of svc reads at the end of the topic.
func got(l *lab.Lab, svc feedv1.FeedServiceServer, topic string) error {
	l.Helper()
	client, _ := l.Connect(svc)
	_, err := watch(l.Context(), client, topic)
	return err
}

// wantText checks the code and the text of an error.
func wantText(l *lab.Lab, what string, err error, want string) {
	l.Helper()
	if text(err) != want {
		l.Errorf("%s: the client reads %s, want %s", what, text(err), want)
	}
	l.Logf("%s: %s", what, text(err))
}

// served lists the server's frames on the link, one text each.
func served(link *lab.Link) (all []string) {
	for _, f := range link.Frames() {
		if f.From == lab.Server {
			all = append(all, strings.TrimSpace(f.Type+" "+f.Text))
		}
	}
	return all
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		s := &server{relay{open: func(ctx context.Context, topic string) (next, error) {
			time.Sleep(time.Millisecond)
			next, err := open(ctx, topic)
			return func(ctx context.Context) (*feedv1.Event, error) {
				time.Sleep(20 * time.Millisecond)
				return next(ctx)
			}, err
		}}}
		client, link := l.Connect(s)
		for _, topic := range []string{"forbidden", "typo"} {
			stream, err := client.Watch(l.Context(), &feedv1.WatchRequest{Topic: topic})
			if err != nil {
				l.Fatal(err)
			}
			header, _ := stream.Header()
			link.Note(lab.Client, "Header: watching %q", header.Get("watching"))
			for err == nil {
				_, err = stream.Recv()
			}
			link.Note(lab.Client, "Recv: %v; Trailer: last-cursor %q", status.Code(err), stream.Trailer().Get("last-cursor"))
			time.Sleep(9 * time.Millisecond)
		}
		lab.Golden(t, "wire.txt", link.Ladder())
	})
}

// All errors of a cancelled stream that a program can get hold of.
func TestErrorsIsFindsNoContextErrorOnEitherSide(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		type seen struct {
			where string
			err   error
			raw   bool // a context's own error, and not gRPC's
		}
		all := make(chan seen, 20)
		client, _ := l.Connect(scripted{chat: func(stream chatServer) error {
			_, err := stream.Recv()
			all <- seen{"the handler's Recv", err, false}
			all <- seen{"the handler's Send", stream.Send(&feedv1.ChatMessage{}), false}
			all <- seen{"the handler's context", stream.Context().Err(), true}
			return nil
		}})
		ctx, cancel := context.WithCancel(l.Context())
		time.AfterFunc(time.Second, cancel)
		stream, err := client.Chat(ctx)
		if err != nil {
			l.Fatal(err)
		}
		_, err = stream.Recv()
		all <- seen{"the client's Recv", err, false}
		all <- seen{"the client's context", stream.Context().Err(), true}
		_, err = client.Chat(ctx)
		all <- seen{"the client's next call", err, false}
		for range 6 {
			s := <-all
			if canceledByIdentity(s.err) != s.raw || canceledByCode(s.err) == s.raw {
				l.Errorf("%s is %v; only a context's own error is context.Canceled, only gRPC's has code Canceled", s.where, s.err)
			}
			l.Logf("%s: errors.Is %t, code %v", s.where, canceledByIdentity(s.err), status.Code(s.err))
		}
		ctx, cancel = context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		if stream, err = client.Chat(ctx); err == nil {
			_, err = stream.Recv()
		}
		if errors.Is(err, context.DeadlineExceeded) || status.Code(err) != codes.DeadlineExceeded {
			l.Errorf("after a deadline the client's Recv is %v, want the code and nothing that errors.Is finds", err)
		}
	})
}

func TestAContextErrorNeedsFromContextError(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want codes.Code
	}{
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{fmt.Errorf("wait: %w", context.Canceled), codes.Canceled},
	} {
		if code := status.Code(tt.err); code != codes.Unknown {
			t.Errorf("status.Code(%v) is %v, want Unknown", tt.err, code)
		}
		if code := status.FromContextError(tt.err).Code(); code != tt.want {
			t.Errorf("status.FromContextError(%v) is %v, want %v", tt.err, code, tt.want)
		}
		t.Logf("%v: Code says %v, FromContextError %v", tt.err, status.Code(tt.err), status.FromContextError(tt.err).Code())
	}
	rpc := status.Error(codes.Canceled, "context canceled")
	if code := status.FromContextError(rpc).Code(); code != codes.Unknown {
		t.Errorf("FromContextError of an RPC's error is %v, want Unknown: it knows the context's own alone", code)
	}
}

func TestAReturnedContextErrorKeepsItsCode(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		for _, err := range []error{context.Canceled, context.DeadlineExceeded} {
			code := status.FromContextError(err).Code()
			wantText(l, "returned", got(l, returns(err), ""), fmt.Sprintf("%v %q", code, err))
			wantText(l, "wrapped", got(l, returns(fmt.Errorf("wait: %w", err)), ""), fmt.Sprintf("%v %q", code, "wait: "+err.Error()))
			wantText(l, "formatted", got(l, returns(fmt.Errorf("wait: %v", err)), ""), fmt.Sprintf("Unknown %q", "wait: "+err.Error()))
		}
	})
}

// A feed that bounds its own wait, and a client that set no deadline.
func TestATimeLimitOfTheFeedIsNotTheClients(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		feed := relay{open: func(context.Context, string) (next, error) {
			return func(ctx context.Context) (*feedv1.Event, error) {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				<-ctx.Done()
				return nil, fmt.Errorf("query: %w", ctx.Err())
			}, nil
		}}
		wantText(l, "returned", got(l, &bareServer{feed}, ""), `DeadlineExceeded "query: context deadline exceeded"`)
		wantText(l, "named", got(l, &server{feed}, ""), `Internal "the feed failed"`)
	})
}

// What interceptors and metrics see of a handler whose client cancelled: its
// source fails with the context's error, or with what a server behind it says,
// which may have another reason by then.
func TestAClientThatLeftIsNoFailure(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		back, _ := l.Connect(&server{relay{open: open}})
		draining := relay{open: func(context.Context, string) (next, error) {
			return func(ctx context.Context) (*feedv1.Event, error) {
				<-ctx.Done()
				return nil, status.Error(codes.Unavailable, "shard-9 drains")
			}, nil
		}}
		for what, feed := range map[string]relay{"its own wait": {open: open}, "an upstream RPC": behind(back), "an upstream that drains": draining} {
			ended := make(chan error, 1)
			var fromFeed error
			opened := feed.open
			feed.open = func(ctx context.Context, topic string) (next, error) {
				next, err := opened(ctx, topic)
				return func(ctx context.Context) (ev *feedv1.Event, err error) {
					ev, err = next(ctx)
					fromFeed = err
					return ev, err
				}, err
			}
			s := &server{feed}
			client, _ := l.Connect(scripted{watch: func(req *feedv1.WatchRequest, stream watchServer) error {
				err := s.Watch(req, stream)
				ended <- err
				return err
			}})
			ctx, cancel := context.WithCancel(l.Context())
			time.AfterFunc(time.Second, cancel)
			watch(ctx, client, "silent")
			err := <-ended
			if !canceledByCode(err) {
				l.Errorf("%s failed with %v, and the handler returned %v, want code Canceled", what, fromFeed, err)
			}
			l.Logf("%s failed with %q (errors.Is: %t), the handler returned %v", what, fromFeed, canceledByIdentity(fromFeed), err)
		}
	})
}

// What ends a handler's context at a deadline: the client's RST_STREAM, or one of
// two timers of the server, which are due at one instant: that of the context, and
// one that closes the stream, which cancels (internal/transport/http2_server.go,
// operateHeaders). A timeout that is no whole number of microseconds is rounded up
// on the wire, so here the RST_STREAM is first, unless it is lost.
func TestADeadlineHasTwoNamesAtTheHandler(t *testing.T) {
	for what, lost := range map[string]bool{"RST_STREAM arrives": false, "RST_STREAM is lost": true} {
		lab.Run(t, func(l *lab.Lab) {
			ended := make(chan error, 1)
			client, link := l.Connect(scripted{watch: func(_ *feedv1.WatchRequest, stream watchServer) error {
				<-stream.Context().Done()
				ended <- stream.Context().Err()
				return nil
			}})
			seen := map[error]int{}
			for range 40 {
				if lost {
					time.AfterFunc(time.Second/2, link.Blackhole)
				}
				ctx, cancel := context.WithTimeout(l.Context(), time.Second+500*time.Nanosecond)
				if _, err := watch(ctx, client, ""); status.Code(err) != codes.DeadlineExceeded {
					l.Errorf("%s: the client has %v, want DeadlineExceeded", what, err)
				}
				cancel()
				seen[<-ended]++
				link.Heal()
				time.Sleep(time.Second)
			}
			canceled, exceeded := seen[context.Canceled], seen[context.DeadlineExceeded]
			if canceled+exceeded != 40 || canceled == 0 || lost != (exceeded > 0) {
				l.Errorf("%s: 40 handlers saw %v, want Canceled each time, and of two timers now one, now the other", what, seen)
			}
			l.Logf("%s: 40 clients have DeadlineExceeded, the handlers' contexts %d times Canceled and %d times DeadlineExceeded", what, canceled, exceeded)
		})
	}
}

func TestReturningEOFIsAFailure(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		err := got(l, &bareServer{relay{open: open}}, "complete")
		wantText(l, "returned", err, `Unknown "EOF"`)
		if errors.Is(err, io.EOF) {
			l.Error("the client's error is io.EOF")
		}
		wantText(l, "turned into nil", got(l, &server{relay{open: open}}, "complete"), "OK")
	})
}

func TestOnlyAWrapKeepsTheCode(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		st := status.Error(codes.NotFound, "no such topic")
		for format, want := range map[string]codes.Code{"%w": codes.NotFound, "%v": codes.Unknown} {
			err := got(l, returns(fmt.Errorf("watch: "+format, st)), "")
			if status.Code(err) != want {
				l.Errorf("a handler that returns a status in %s gave %v, want %v", format, err, want)
			}
			// On the client it is no different.
			if code := status.Code(fmt.Errorf("client: "+format, err)); code != want {
				l.Errorf("the client's error in %s has code %v, want %v", format, code, want)
			}
			l.Logf("%s: %v", format, status.Code(err))
		}
	})
}

// Both borders wrap. FromError takes the text of the whole error for the
// message of the status (status/status.go), whose text begins again.
func TestAWrapPutsTheWholeTextOnTheWire(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		back, _ := l.Connect(returns(fmt.Errorf("back: %w", status.Error(codes.NotFound, "no such topic"))))
		front, link := l.Connect(scripted{watch: func(req *feedv1.WatchRequest, stream watchServer) error {
			_, err := watch(stream.Context(), back, req.GetTopic())
			return fmt.Errorf("front: %w", err)
		}})
		_, err := watch(l.Context(), front, "")
		const want = "front: rpc error: code = NotFound desc = back: rpc error: code = NotFound desc = no such topic"
		wantText(l, "wrapped at two borders", err, fmt.Sprintf("NotFound %q", want))
		if f := link.Frames()[len(link.Frames())-1]; f.Field("grpc-message") != want {
			l.Errorf("grpc-message is %q, want the same text", f.Field("grpc-message"))
		}

		// A client that wraps sees the same, and has the server's text by errors.As.
		err = fmt.Errorf("client: %w", got(l, returns(status.Error(codes.NotFound, "no such topic")), ""))
		wantText(l, "wrapped by the client", err, `NotFound "client: rpc error: code = NotFound desc = no such topic"`)
		var inner interface{ GRPCStatus() *status.Status }
		if !errors.As(err, &inner) || inner.GRPCStatus().Message() != "no such topic" {
			l.Error("errors.As does not find the server's text")
		}
	})
}

// Two servers: the one behind refuses the one in front.
func TestAForwardedStatusBlamesTheClient(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		refusal := status.Error(codes.PermissionDenied, "relay-7 may not read")
		back, _ := l.Connect(returns(refusal))
		answer := func(svc feedv1.FeedServiceServer) (fields []string) {
			client, link := l.Connect(svc)
			_, err := watch(l.Context(), client, "alerts")
			wantText(l, "forwarded, or the client's own", err, `PermissionDenied "relay-7 may not read"`)
			for _, f := range link.Frames() {
				if f.From == lab.Server {
					fields = append(fields, fmt.Sprint(f.Type, f.Fields, f.EndStream))
				}
			}
			return fields
		}
		if forwarded, own := answer(&bareServer{behind(back)}), answer(returns(refusal)); !slices.Equal(forwarded, own) {
			l.Errorf("forwarded, the refusal is %q on the wire, and the client's own is %q, want the same", forwarded, own)
		}
		wantText(l, "named", got(l, &server{behind(back)}, "alerts"), `Internal "the feed failed"`)
		down, _ := l.Connect(returns(status.Error(codes.Unavailable, "shard-9 drains")))
		wantText(l, "named", got(l, &server{behind(down)}, "alerts"), `Unavailable "the feed cannot be reached"`)
	})
}

func TestDetailsCrossAsMessages(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		want := &feedv1.WatchRequest{Topic: "typo"}
		client, link := l.Connect(&server{relay{open: open}})
		_, err := watch(l.Context(), client, "typo")
		details := status.Convert(err).Details()
		if len(details) != 1 || !proto.Equal(details[0].(proto.Message), want) {
			l.Fatalf("the client got the details %v, want %v", details, want)
		}
		bin := link.Frames()[len(link.Frames())-1].Field("grpc-status-details-bin")
		if bin == "" {
			l.Error("the trailers have no grpc-status-details-bin")
		}
		l.Logf("%T{%v}, %d B in grpc-status-details-bin", details[0], details[0], len(bin))

		err = got(l, returns(fmt.Errorf("watch: %w", err)), "") // once more over a wire, wrapped
		if len(status.Convert(err).Details()) != 1 {
			l.Errorf("wrapped in %%w the details are lost: %v", err)
		}
		unknown := status.Convert(err).Proto() // a type that this program was not linked with
		unknown.Details[0].TypeUrl = "type.googleapis.com/other.v1.Hint"
		err = got(l, returns(status.ErrorProto(unknown)), "")
		if _, isError := status.Convert(err).Details()[0].(error); !isError || status.Code(err) != codes.NotFound {
			l.Errorf("an unknown detail is %T beside code %v, want an error beside NotFound", status.Convert(err).Details()[0], status.Code(err))
		}
	})
}

// RecvMsg writes the status before it returns (stream.go, serverStream.RecvMsg).
func TestASwallowedRecvErrorReachesTheClientAnyway(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		seen := make(chan error, 2)
		link := l.NewLink()
		link.Serve(scripted{upload: func(stream uploadServer) error {
			var err error
			for err == nil { // any error is the end
				_, err = stream.Recv()
			}
			seen <- err
			seen <- stream.SendAndClose(&feedv1.UploadResult{Received: 1})
			return nil
		}}, grpc.MaxRecvMsgSize(100))
		stream, err := feedv1.NewFeedServiceClient(link.Dial()).UploadEvents(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		stream.Send(&feedv1.Event{Id: "1"})
		stream.Send(&feedv1.Event{Id: "2", Body: strings.Repeat("x", 100)})
		receipt, err := stream.CloseAndRecv()
		received, sent := <-seen, <-seen
		if status.Code(received) != codes.ResourceExhausted || !canceledByCode(sent) {
			l.Errorf("in the handler Recv returned %v and SendAndClose %v, want ResourceExhausted and Canceled", received, sent)
		}
		if receipt != nil || text(err) != text(received) {
			l.Errorf("the handler returned nil, and the client got %v, %v, want Recv's error", receipt, err)
		}
		l.Logf("Recv: %v; SendAndClose: %v; the handler: nil; the client: %v", received, sent, err)
	})
}

func TestHeaderWaitsForTheServersFirstFrame(t *testing.T) {
	slow := relay{open: func(ctx context.Context, topic string) (next, error) {
		return func(ctx context.Context) (*feedv1.Event, error) {
			select {
			case <-time.After(time.Hour):
				return &feedv1.Event{Id: "1"}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}, nil
	}}
	for _, tt := range []struct {
		what  string
		svc   feedv1.FeedServiceServer
		after time.Duration
		want  []string
	}{
		{"with the first event", &bareServer{slow}, time.Hour + 2*lab.Latency, nil},
		{"with SendHeader", &server{slow}, 2 * lab.Latency, []string{"yes"}},
		{"with the end of its own patience", &bareServer{relay{open: open}}, 2 * time.Hour, nil},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(tt.svc)
			start := time.Now()
			got := header(l.Context(), client, "silent", 2*time.Hour)
			if took := time.Since(start); took != tt.after || !slices.Equal(got, tt.want) {
				l.Errorf("%s Header returned %q after %v, want %q after %v", tt.what, got, took, tt.want, tt.after)
			}
			l.Logf("%s: Header returned after %v", tt.what, time.Since(start))
		}, lab.Lasts(3*time.Hour))
	}
}

func TestWithoutHeadersHeaderReturnsNilTwice(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		for _, want := range []error{nil, status.Error(codes.NotFound, "no such topic")} {
			client, _ := l.Connect(returns(want))
			stream, err := client.Watch(l.Context(), &feedv1.WatchRequest{})
			if err != nil {
				l.Fatal(err)
			}
			header, err := stream.Header()
			_, end := stream.Recv()
			if header != nil || err != nil || end == nil {
				l.Errorf("the handler returned %v: Header returned %v, %v and Recv %v, want nil, nil and the end", want, header, err, end)
			}
			l.Logf("Header: nil, nil; Recv: %v", end)
		}
		client, _ := l.Connect(&server{relay{open: open}})
		stream, err := client.Watch(l.Context(), &feedv1.WatchRequest{Topic: "complete"})
		if err != nil {
			l.Fatal(err)
		}
		if header, _ := stream.Header(); header == nil {
			l.Error("the server sent headers, and Header returned nil")
		}
		for err == nil {
			_, err = stream.Recv()
		}
	})
}

// asked notes what SetHeader returns.
type asked struct {
	watchServer
	errs []error
}

func (a *asked) SetHeader(md metadata.MD) error {
	err := a.watchServer.SetHeader(md)
	a.errs = append(a.errs, err)
	return err
}

func TestSetHeaderAfterSendFails(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		bare := &bareServer{relay{open: open}}
		noted := make(chan []error, 1)
		client, link := l.Connect(scripted{watch: func(req *feedv1.WatchRequest, stream watchServer) error {
			a := &asked{watchServer: stream}
			defer func() { noted <- a.errs }()
			return bare.Watch(req, a)
		}})
		watch(l.Context(), client, "forbidden")
		errs := <-noted
		if len(errs) != 2 || status.Code(errs[0]) != codes.Internal {
			l.Errorf("SetHeader returned %v, want Internal", errs)
		}
		if got := served(link); len(got) != 4 || got[0] != "HEADERS :status 200" || strings.Contains(strings.Join(got, " "), "watching") {
			l.Errorf("the server sent %q, want no header of that name, and both events", got)
		}
		l.Logf("SetHeader: %v; the server sent %q", errs[0], served(link)[0])
	})
}

// leave asks on a stream that has not ended. With a trailer under way it would
// be a data race: Stream.Trailer takes no lock (internal/transport/transport.go).
func TestBeforeTheEndThereIsNoTrailer(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{relay{open: open}})
		early, err := leave(l.Context(), client, "growing", 2)
		if early != "" || err != nil {
			l.Errorf("asked before the end: %q, %v, want none and no error", early, err)
		}
		late, _ := watch(l.Context(), client, "complete")
		if late != "2" {
			l.Errorf("asked after the end: %q, want 2", late)
		}
		l.Logf("after two events: %q; after io.EOF: %q", early, late)
	})
}

// The trailer is written when it arrives, not when it is due: a client that
// reads late, or a server that ends at once, hides the mistake.
func TestATrailerThatHasArrivedShowsTooEarly(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{relay{open: open}})
		var option metadata.MD // filled when the call ends for the client (stream.go, clientStream.finish)
		stream, err := client.Watch(l.Context(), &feedv1.WatchRequest{Topic: "complete"}, grpc.Trailer(&option))
		if err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait() // the transport's goroutine waits: no race
		early, unread := cursor(stream.Trailer()), cursor(option)
		n := 0
		for ; err == nil; n++ {
			_, err = stream.Recv()
		}
		if early != "2" || unread != "" || n != 3 || cursor(option) != "2" {
			l.Errorf("before the first Recv Trailer has %q and grpc.Trailer %q, after %d Recvs %q; want 2, none, 3, 2", early, unread, n, cursor(option))
		}
		l.Logf("before the first of %d Recvs: Trailer %q, grpc.Trailer %q; at the end: %q", n, early, unread, cursor(option))

		ctx, cancel := context.WithCancel(l.Context())
		var cancelled metadata.MD
		if _, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "complete"}, grpc.Trailer(&cancelled)); err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Second)
		cancel()
		synctest.Wait() // for gRPC's goroutine that waits for ctx
		if cursor(cancelled) != "2" {
			l.Errorf("cancelled before the first Recv, grpc.Trailer has %q, want 2", cursor(cancelled))
		}

		client, _ = l.Connect(scripted{watch: func(_ *feedv1.WatchRequest, stream watchServer) error {
			stream.SetTrailer(metadata.Pairs("last-cursor", "0"))
			return status.Error(codes.NotFound, "no such topic")
		}})
		var refused metadata.MD
		if stream, err = client.Watch(l.Context(), &feedv1.WatchRequest{}, grpc.Trailer(&refused)); err != nil {
			l.Fatal(err)
		}
		before := cursor(refused)
		if stream.Header(); before != "" || cursor(refused) != "0" {
			l.Errorf("refused without headers, grpc.Trailer has %q before Header and %q after it, want none and 0", before, cursor(refused))
		}
	})
}

func TestTheTrailerComesWithEveryStatus(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(&server{relay{open: open}})
		for topic, want := range map[string]codes.Code{"complete": codes.OK, "forbidden": codes.Internal, "moved": codes.Unavailable} {
			last, err := watch(l.Context(), client, topic)
			f := link.Frames()[len(link.Frames())-1]
			if last != "2" || status.Code(err) != want || f.Field("last-cursor") != "2" || f.Field("grpc-status") == "" {
				l.Errorf("%s: %q, %v and the last frame %q, want 2 and code %v in one frame", topic, last, err, f.Text, want)
			}
			l.Logf("%s: %s", topic, f.Text)
		}
	})
}

func TestSetTrailerAddsAValue(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(&bareServer{relay{open: open}})
		last, _ := watch(l.Context(), client, "forbidden")
		text := link.Frames()[len(link.Frames())-1].Text
		if last != "1" || !strings.HasSuffix(text, "last-cursor 1  last-cursor 2") {
			l.Errorf("set after events 1 and 2 the trailers are %q and the first value is %q, want both values", text, last)
		}
		l.Logf("%s; the client takes %q for the last", text, last)
	})
}

func TestOnlyTheServersEndBringsATrailer(t *testing.T) {
	for _, how := range []string{"cancel", "deadline", "cut"} {
		lab.Run(t, func(l *lab.Lab) {
			client, link := l.Connect(&server{relay{open: open}})
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			switch how {
			case "cancel":
				time.AfterFunc(time.Second, cancel)
			case "deadline":
				ctx, cancel = context.WithTimeout(ctx, time.Second)
				defer cancel()
			case "cut":
				time.AfterFunc(time.Second, link.Cut)
			}
			last, err := watch(ctx, client, "growing")
			if last != "" || err == nil {
				l.Errorf("%s: %q, %v, want an error and no trailer", how, last, err)
			}
			l.Logf("%s: trailer %q, %v", how, last, status.Code(err))
		})
	}
}

// writeStatus joins headers and trailers if no header was set or sent
// (internal/transport/http2_server.go).
func TestAnEndWithoutHeadersIsOneFrame(t *testing.T) {
	for _, tt := range []struct {
		what  string
		watch func(*feedv1.WatchRequest, watchServer) error
		want  []string
	}{
		{"an error at once", returns(status.Error(codes.NotFound, "gone")).watch,
			[]string{"HEADERS :status 200  grpc-status 5  grpc-message gone"}},
		{"nil at once", returns(nil).watch, []string{"HEADERS :status 200  grpc-status 0"}},
		{"a trailer and an error", func(_ *feedv1.WatchRequest, stream watchServer) error {
			stream.SetTrailer(metadata.Pairs("last-cursor", "0"))
			return status.Error(codes.NotFound, "gone")
		}, []string{"HEADERS :status 200  grpc-status 5  grpc-message gone  last-cursor 0"}},
		{"a header and an error", func(_ *feedv1.WatchRequest, stream watchServer) error {
			stream.SetHeader(metadata.Pairs("watching", "yes"))
			return status.Error(codes.NotFound, "gone")
		}, []string{"HEADERS :status 200  watching yes", "HEADERS grpc-status 5  grpc-message gone"}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, link := l.Connect(scripted{watch: tt.watch})
			watch(l.Context(), client, "")
			if got := served(link); !slices.Equal(got, tt.want) {
				l.Errorf("%s: the server sent %q, want %q", tt.what, got, tt.want)
			}
			l.Logf("%s: %q", tt.what, served(link))
		})
	}
}

// SetTrailer returns nothing: it logs, and sends what it was given.
func TestABadTrailerTurnsOKIntoAFailure(t *testing.T) {
	for _, tt := range []struct {
		md   metadata.MD
		want codes.Code
	}{
		{metadata.Pairs("last-cursor", "one\ntwo"), codes.Internal},
		{metadata.MD{"Last-Cursor": {"2"}}, codes.Internal}, // Pairs makes the key lower case
		{metadata.Pairs("last-cursor-bin", "one\ntwo"), codes.OK},
		{metadata.Pairs("Last-Cursor", "2"), codes.OK},
	} {
		lab.Run(t, func(l *lab.Lab) {
			err := got(l, scripted{watch: func(_ *feedv1.WatchRequest, stream watchServer) error {
				stream.SetTrailer(tt.md)
				return nil
			}}, "")
			if status.Code(err) != tt.want {
				l.Errorf("the handler set %q and returned nil, and the client got %v, want %v", map[string][]string(tt.md), err, tt.want)
			}
			l.Logf("%q: %s", map[string][]string(tt.md), text(err))
		})
	}
}
