package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

type (
	chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]
	chatClient = grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]
	taker      = func(context.Context, feedv1.FeedServiceClient, string, int) ([]*feedv1.Event, error)
)

// scripted is a server whose handlers a test plays.
type scripted struct {
	feedv1.UnimplementedFeedServiceServer
	watch func(watchServer) error
	chat  func(chatServer) error
}

func (s scripted) Watch(_ *feedv1.WatchRequest, stream watchServer) error { return s.watch(stream) }
func (s scripted) Chat(stream chatServer) error                           { return s.chat(stream) }

// open says how many of the lab's streams have not been released.
func open(l *lab.Lab) (n int) {
	for _, rpc := range l.RPCs() {
		if !rpc.Ended {
			n++
		}
	}
	return n
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows: the same event, taken twice.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		s := &server{every: time.Second}
		link.Serve(scripted{watch: func(stream watchServer) error {
			err := s.Watch(&feedv1.WatchRequest{Topic: "deploys"}, stream)
			time.Sleep(time.Millisecond) // its last frame and the note share no instant
			link.Note(lab.Server, "the handler returns %v", err)
			return err
		}})
		client := feedv1.NewFeedServiceClient(link.Dial())
		ctx, cancel := context.WithCancel(context.Background())
		takeAndReturn(ctx, client, "deploys", 1)
		link.Note(lab.Client, "takeAndReturn has its event and returns")
		time.Sleep(time.Hour)
		link.Note(lab.Client, "%s", l.Leaks()[0])
		first := link.Ladder()
		cancel()
		time.Sleep(time.Second)
		take(l.Context(), markedClient{client, link}, "deploys", 1)
		link.Note(lab.Client, "take has its event and cancels")
		time.Sleep(time.Second)
		_, second, _ := strings.Cut(link.Ladder(), "\n")
		lab.Golden(t, "wire.txt", first+"\n"+second)
	}, lab.Lasts(2*time.Hour))
}

// markedClient starts the recording anew when Recv has an event.
type markedClient struct {
	feedv1.FeedServiceClient
	link *lab.Link
}

func (c markedClient) Watch(ctx context.Context, req *feedv1.WatchRequest, opts ...grpc.CallOption) (watchClient, error) {
	stream, err := c.FeedServiceClient.Watch(ctx, req, opts...)
	return markedStream{stream, c.link}, err
}

type markedStream struct {
	watchClient
	link *lab.Link
}

func (s markedStream) Recv() (*feedv1.Event, error) {
	defer s.link.Mark()
	return s.watchClient.Recv()
}

// What each way to leave leaves, an hour later and with the connection open,
// counted on the client as main.go does it.
func TestAReturnLeavesTheStreamAndACancelDoesNot(t *testing.T) {
	for _, tt := range []struct {
		what     string
		take     taker
		topic    string
		n        int
		streams  int32
		handlers int32
	}{
		{"take one event, return", takeAndReturn, "alerts", 1, 1, 1},
		{"take one event, CloseSend", takeAndCloseSend, "alerts", 1, 1, 1},
		{"take all events, not the EOF", takeAndReturn, "deploys", 3, 1, 0},
		{"take all events and the EOF", takeAndReturn, "deploys", 4, 0, 0},
		{"take one event, cancel", take, "alerts", 1, 0, 0},
		{"take all events, cancel", take, "deploys", 3, 0, 0},
		{"open with an ended context", openTooLate, "alerts", 1, 0, 0},
	} {
		lab.Run(t, func(l *lab.Lab) {
			s, begun := &server{every: time.Minute}, &streams{}
			link := l.NewLink()
			link.Serve(s)
			client := feedv1.NewFeedServiceClient(link.Dial(grpc.WithStreamInterceptor(begun.count)))
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if taken, err := tt.take(ctx, client, tt.topic, tt.n); err != nil && err != io.EOF {
				l.Errorf("%s: %d events, %v", tt.what, len(taken), err)
			}
			time.Sleep(time.Hour)
			left, handlers := begun.open.Load(), s.subscriptions.Load()
			if left != tt.streams || handlers != tt.handlers {
				l.Errorf("%s: an hour later %d streams and %d handlers, want %d and %d", tt.what, left, handlers, tt.streams, tt.handlers)
			}
			l.Logf("%-28s: an hour later the client has %d stream, the server %d handler", tt.what, left, handlers)
		}, lab.Lasts(2*time.Hour))
	}
}

// openTooLate opens no stream: what counts streams must not keep one for it.
func openTooLate(ctx context.Context, client feedv1.FeedServiceClient, topic string, _ int) ([]*feedv1.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}); status.Code(err) != codes.Canceled {
		return nil, fmt.Errorf("Watch returned %v, want Canceled", err)
	}
	return nil, nil
}

// The four releases that NewStream documents (stream.go), while the server's
// handler would stay. The third and the fourth need a server that ends.
func TestEachDocumentedReleaseReleases(t *testing.T) {
	stay := func(stream chatServer) error { <-stream.Context().Done(); return nil }
	end := func(err error) func(chatServer) error { return func(chatServer) error { return err } }
	recv := func(s chatClient) string {
		_, err := s.Recv()
		return fmt.Sprintf("Recv: %v", err)
	}
	full := status.Error(codes.ResourceExhausted, "full")
	for _, tt := range []struct {
		what    string
		handler func(chatServer) error
		release func(s chatClient, cancel func(), conn *grpc.ClientConn) string
		want    string
	}{
		{"1 conn.Close", stay, func(_ chatClient, _ func(), conn *grpc.ClientConn) string {
			return fmt.Sprintf("Close: %v", conn.Close())
		}, "Close: <nil>"},
		{"2 cancel", stay, func(_ chatClient, cancel func(), _ *grpc.ClientConn) string { cancel(); return "" }, ""},
		{"2 deadline", stay, func(chatClient, func(), *grpc.ClientConn) string { time.Sleep(2 * time.Hour); return "" }, ""},
		{"3 Recv to the EOF", end(nil), func(s chatClient, _ func(), _ *grpc.ClientConn) string { return recv(s) },
			"Recv: EOF"},
		{"3 Recv to the error", end(full), func(s chatClient, _ func(), _ *grpc.ClientConn) string { return recv(s) },
			"Recv: rpc error: code = ResourceExhausted desc = full"},
		{"4 Send, a local error", stay, func(s chatClient, _ func(), _ *grpc.ClientConn) string {
			return fmt.Sprintf("Send: %v", status.Code(s.Send(&feedv1.ChatMessage{Text: "\xff"})))
		}, "Send: Internal"},
		{"4 Header, refused", end(full), func(s chatClient, _ func(), _ *grpc.ClientConn) string {
			md, err := s.Header() // the documentation says: an error
			return fmt.Sprintf("Header: %v, %v", md == nil, err)
		}, "Header: true, <nil>"},
	} {
		lab.Run(t, func(l *lab.Lab) {
			running := make(chan bool, 1)
			link := l.NewLink()
			link.Serve(scripted{chat: func(stream chatServer) error {
				running <- true
				defer func() { <-running }()
				return tt.handler(stream)
			}})
			conn := link.Dial()
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
			defer cancel()
			stream, err := feedv1.NewFeedServiceClient(conn).Chat(ctx)
			if err != nil {
				l.Fatal(err)
			}
			time.Sleep(time.Hour)
			before := open(l)
			got := tt.release(stream, cancel, conn)
			time.Sleep(time.Second)
			if before != 1 || got != tt.want || open(l) != 0 || len(running) != 0 {
				l.Errorf("%s: %d streams before, %q, want 1 and %q; %d streams and %d handlers after, want none",
					tt.what, before, got, tt.want, open(l), len(running))
			}
			l.Logf("%-22s %s: stream and handler are gone", tt.what, got)
		}, lab.Lasts(4*time.Hour))
	}
}

func TestWhatLooksLikeAReleaseIsNone(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		end := make(chan error)
		client, _ := l.Connect(scripted{chat: func(stream chatServer) error {
			stream.SendHeader(nil)
			select {
			case err := <-end:
				return err
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}})
		for _, try := range []struct {
			what string
			do   func(chatClient) error
			want error
		}{
			{"Header with a header", func(s chatClient) error { _, err := s.Header(); return err }, nil},
			{"CloseSend", chatClient.CloseSend, nil},
			{"Context", func(s chatClient) error { return s.Context().Err() }, nil},
			{"Trailer", func(s chatClient) error { s.Trailer(); return nil }, nil},
			{"Send after the server's end", func(s chatClient) error {
				end <- nil
				time.Sleep(time.Second)
				return s.Send(&feedv1.ChatMessage{})
			}, io.EOF},
		} {
			ctx, cancel := context.WithCancel(context.Background())
			stream, err := client.Chat(ctx)
			if err != nil {
				l.Fatal(err)
			}
			err = try.do(stream)
			time.Sleep(time.Hour)
			if open(l) != 1 || err != try.want {
				l.Errorf("%s returned %v, and an hour later %d streams are open, want %v and 1", try.what, err, open(l), try.want)
			}
			l.Logf("%s: %v, and an hour later the stream is open", try.what, err)
			cancel()
			time.Sleep(time.Second)
		}
	}, lab.Lasts(6*time.Hour))
}

// The table that the README shows: what is left of an abandoned stream a day
// after something else has happened to it.
func TestOnlyTheServersHalfEndsWithTheConnection(t *testing.T) {
	type scene struct {
		link   *lab.Link
		srv    *grpc.Server
		conn   *grpc.ClientConn
		stream watchClient
		cancel func()
		end    chan error // what the handler returns
	}
	pings := []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second}),
	}
	const row = "%-42s%-10s%-18s%v\n"
	table := fmt.Sprintf(row, "what happened, a day ago", "handler", "client's stream", "channel")
	for _, tt := range []struct {
		what string
		opts []grpc.ServerOption
		do   func(*scene)
	}{
		{"nothing; garbage was collected", nil, func(s *scene) { s.stream = nil; runtime.GC() }},
		{"keepalive pings were sent and answered", pings, func(s *scene) {}},
		{"the handler returned", nil, func(s *scene) { s.end <- nil }},
		{"the connection was cut", nil, func(s *scene) { s.link.Cut() }},
		{"the network went dead, keepalive noticed", pings, func(s *scene) { s.link.Blackhole() }},
		{"MaxConnectionAge and its grace passed", []grpc.ServerOption{grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: time.Minute, MaxConnectionAgeGrace: time.Minute})}, func(s *scene) {}},
		{"srv.Stop", nil, func(s *scene) { s.srv.Stop() }},
		{"the handler returned, Recv said so", nil, func(s *scene) { s.end <- nil; s.stream.Recv() }},
		{"the context ended", nil, func(s *scene) { s.cancel() }},
		{"conn.Close", nil, func(s *scene) { s.conn.Close() }},
	} {
		lab.Run(t, func(l *lab.Lab) {
			s := scene{link: l.NewLink(), end: make(chan error, 1)}
			var handlers atomic.Int32
			s.srv = s.link.Serve(scripted{watch: func(stream watchServer) error {
				handlers.Add(1)
				defer handlers.Add(-1)
				stream.Send(&feedv1.Event{})
				select {
				case err := <-s.end:
					return err
				case <-stream.Context().Done():
					return stream.Context().Err()
				}
			}}, tt.opts...)
			s.conn = s.link.Dial(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Minute, Timeout: 5 * time.Second}))
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			s.cancel = cancel
			var err error
			if s.stream, err = feedv1.NewFeedServiceClient(s.conn).Watch(ctx, &feedv1.WatchRequest{}); err != nil {
				l.Fatal(err)
			}
			s.stream.Recv()
			time.Sleep(time.Second)
			tt.do(&s)
			time.Sleep(24 * time.Hour)
			table += fmt.Sprintf(row, tt.what, []string{"ended", "runs"}[handlers.Load()], []string{"ended", "open"}[open(l)], s.conn.GetState())
			s.link.Heal()
		}, lab.Lasts(25*time.Hour))
	}
	t.Logf("\n%s", table)
	lab.Golden(t, "ends.txt", table)
}

var (
	clients = []int{0, 200, 400, 600, 800, 1000}
	nothing = make([]int, len(clients))
)

// What 1,000 clients leave that take one event and go. Both ends are in this
// process, so that goroutines and bytes are those of client and server.
func TestAThousandClientsLeaveAThousandStreams(t *testing.T) {
	measure := func(take taker) (left, subscriptions []int, perClient int) {
		lab.Run(t, func(l *lab.Lab) {
			s := &server{every: 24 * time.Hour}
			client, _ := l.Connect(s)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			before, heap := goroutines(), memory()
			for i, n := range clients {
				for range n - clients[max(i-1, 0)] {
					if _, err := take(ctx, client, "alerts", 1); err != nil {
						l.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				left = append(left, goroutines()-before)
				subscriptions = append(subscriptions, int(s.subscriptions.Load()))
			}
			perClient = (memory() - heap) / 1000
		}, lab.RealLimit(time.Minute)) // it dumps 2,000 goroutines
		return left, subscriptions, perClient
	}
	left, subscribed, held := measure(takeAndReturn)
	cancelled, unsubscribed, none := measure(take)
	if held < 10_000 || held > 40_000 || none > 2_000 {
		t.Errorf("an abandoned stream holds %d B and a cancelled one %d B, want 10,000 to 40,000 and at most 2,000", held, none)
	}
	if !slices.Equal(cancelled, nothing) || !slices.Equal(unsubscribed, nothing) {
		t.Errorf("cancelled: %d goroutines and %d subscriptions are left, want none", cancelled, unsubscribed)
	}
	t.Logf("after %d clients: %d goroutines, %d subscriptions, %d B a client", clients, left, subscribed, held)
	t.Logf("cancelled:  %d goroutines, %d subscriptions, %d B a client", cancelled, unsubscribed, none)
	lab.Golden(t, "growth.mmd", fmt.Sprintf(`xychart-beta
    title "Goroutines and subscriptions that returning clients leave, and either with a cancel"
    x-axis "clients that came and went" %s
    line "goroutines" %s
    line "subscriptions" %s
    line "either, with a cancel" %s
`, list(clients), list(left), list(subscribed), list(cancelled)))
}

// goroutines counts those of the test's bubble: the process may have others.
func goroutines() int {
	buf := make([]byte, 8<<20)
	own := regexp.MustCompile(`synctest bubble \d+]`).Find(buf[:runtime.Stack(buf, false)])
	return bytes.Count(buf[:runtime.Stack(buf, true)], slices.Clone(own))
}

func list(numbers []int) string { return strings.ReplaceAll(fmt.Sprint(numbers), " ", ", ") }

// memory is what is in use after a collection, stacks included.
func memory() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// A busy topic: 1,008 B on the wire each millisecond, until Send waits.
func TestUnreadEventsWaitInBothProcesses(t *testing.T) {
	const wire, streams = 1008, 100
	lab.Run(t, func(l *lab.Lab) {
		var sent atomic.Int64
		client, link := l.Connect(scripted{watch: func(stream watchServer) error {
			for {
				if err := stream.Send(&feedv1.Event{Body: strings.Repeat("x", 1000)}); err != nil {
					return err
				}
				sent.Add(1)
				time.Sleep(time.Millisecond)
			}
		}})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		heap := memory()
		for range streams {
			if _, err := takeAndReturn(ctx, client, "", 1); err != nil {
				l.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		per := (memory() - heap) / streams
		arrived := 0
		for _, f := range link.Frames() {
			if f.From == lab.Server && f.Type == "DATA" {
				arrived += f.Length
			}
		}
		atClient, atServer := arrived/streams-wire, (int(sent.Load())*wire-arrived)/streams
		if sent.Load() != 131*streams || atClient != 64_527 || atServer != 66_513 {
			l.Errorf("%d events were sent; for each stream %d B wait in the client and %d B in the server, want 13,100, 64,527 and 66,513", sent.Load(), atClient, atServer)
		}
		if per < 140_000 || per > 400_000 {
			l.Errorf("a stream takes %d B of memory, want 140,000 to 400,000", per)
		}
		l.Logf("131 events a stream, then Send waits: %d B in the client, %d B in the server, %d B of memory in all", atClient, atServer, per)
	}, lab.Lasts(2*time.Hour))
}

// goleak finds both halves. The client's names gRPC alone.
func TestGoleakDoesNotNameTheOpener(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(&server{every: time.Hour})
		conn := link.Dial()
		before := goleak.IgnoreCurrent()
		if _, err := takeAndReturn(context.Background(), feedv1.NewFeedServiceClient(conn), "alerts", 1); err != nil {
			l.Fatal(err)
		}
		entries := lab.Goleak(before)
		report := strings.Join(entries, "\n")
		if len(entries) != 2 || !strings.Contains(entries[1], "main.(*server).Watch(…)") || strings.Contains(report, "takeAndReturn") {
			l.Errorf("goleak reports %d goroutines, want the stream's, the handler's, and takeAndReturn nowhere:\n%s", len(entries), report)
		}
		lab.Golden(l, "goleak.txt", entries[0]+"\n")
		conn.Close()
	})
}

// The same test in a process that remembers who started a goroutine. goleak
// leaves that out (stacks.go, parseStack), a dump does not.
func TestADumpWithAncestorsNamesTheOpener(t *testing.T) {
	const setting = "tracebackancestors=1"
	if strings.Contains(os.Getenv("GODEBUG"), setting) { // the child
		lab.Run(t, func(l *lab.Lab) {
			link := l.NewLink()
			link.Serve(&server{every: time.Hour})
			conn := link.Dial()
			takeAndReturn(context.Background(), feedv1.NewFeedServiceClient(conn), "alerts", 1)
			time.Sleep(time.Second)
			pprof.Lookup("goroutine").WriteTo(os.Stdout, 2) // as /debug/pprof/goroutine?debug=2
			conn.Close()
		})
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), "GODEBUG="+setting)
	out, err := child.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range strings.Split(lab.Brief(string(out)), "\n\n") {
		if strings.Contains(g, "newClientStreamWithParams.func") {
			_, opener, _ := strings.Cut(g, "[originating")
			if !regexp.MustCompile(`main\.takeAndReturn\(…\)\n    main\.go:\d+\n`).MatchString(opener) {
				t.Errorf("the dump does not name takeAndReturn:\n%s", g)
			}
			t.Logf("\n%s", g)
			return
		}
	}
	t.Errorf("the dump has no stream:\n%s", out)
}

func TestClosingTheConnectionHidesTheLeak(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		s := &server{every: time.Hour}
		link.Serve(s)
		conn := link.Dial()
		before := goleak.IgnoreCurrent()
		for range 100 {
			if _, err := takeAndReturn(context.Background(), feedv1.NewFeedServiceClient(conn), "alerts", 1); err != nil {
				l.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		openFor := strings.Count(fmt.Sprint(goleak.Find(before)), "Goroutine ")
		conn.Close()
		time.Sleep(time.Second)
		after := goleak.Find(before)
		if openFor != 200 || after != nil || open(l) != 0 || s.subscriptions.Load() != 0 {
			l.Errorf("goleak finds %d goroutines before Close and %v after it, want 200 and nothing", openFor, after)
		}
		l.Logf("goleak finds %d goroutines an hour later, and nothing after conn.Close", openFor)
	}, lab.Lasts(2*time.Hour))
}

// Nothing has arrived when the helper's defer runs. Where the helper takes its
// time, what has arrived comes first.
func TestAHelperThatDefersItsCancelReturnsADeadStream(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		s := &server{every: time.Hour}
		client, _ := l.Connect(s)
		taken, err := takeFromAHelper(l.Context(), client, "alerts", 1)
		if len(taken) != 0 || status.Code(err) != codes.Canceled {
			l.Errorf("the first Recv returned %d events and %v, want Canceled", len(taken), err)
		}
		l.Logf("opened without an error; the first Recv: %v", err)

		ctx, cancel := context.WithCancel(l.Context())
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
		if err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Second)
		cancel()
		taken, err = recv(stream, 2)
		if len(taken) != 1 || status.Code(err) != codes.Canceled {
			l.Errorf("Recv returned %d events and %v, want the one that had arrived, and Canceled", len(taken), err)
		}
		l.Logf("a second between the two: %d event, then %v", len(taken), status.Code(err))
	})
}

func TestALoopOverEventsReleasesOnEveryWayOut(t *testing.T) {
	for _, tt := range []struct {
		way, topic string
		n          int
		take       taker
		want       codes.Code
	}{
		{"break", "alerts", 3, takeFromEvents, codes.OK},
		{"the end", "deploys", 9, takeFromEvents, codes.OK},
		{"return, when the network is cut", "alerts", 9, takeFromEvents, codes.Unavailable},
		{"panic", "alerts", 3, takeAndPanic, codes.OK},
	} {
		lab.Run(t, func(l *lab.Lab) {
			s := &server{every: time.Second}
			client, link := l.Connect(s)
			time.AfterFunc(2500*time.Millisecond, link.Cut) // after the third event
			taken, err := tt.take(l.Context(), client, tt.topic, tt.n)
			time.Sleep(lab.Latency + time.Millisecond)
			if handlers := s.subscriptions.Load(); len(taken) != 3 || status.Code(err) != tt.want || open(l) != 0 || handlers != 0 {
				l.Errorf("%s: %d events, %v, a latency later %d streams and %d handlers, want 3, %v and none", tt.way, len(taken), err, open(l), handlers, tt.want)
			}
			l.Logf("%s: %d events, code %v; a latency later stream and handler are gone", tt.way, len(taken), status.Code(err))
		})
	}
}

func takeAndPanic(ctx context.Context, client feedv1.FeedServiceClient, topic string, n int) (taken []*feedv1.Event, err error) {
	defer func() { recover() }()
	for ev := range events(ctx, client, topic) {
		if taken = append(taken, ev); len(taken) == n {
			panic("in the loop")
		}
	}
	return taken, nil
}

func TestAbandonedStreamsTakeTheConnectionsPlaces(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(&server{every: time.Hour}, grpc.MaxConcurrentStreams(100))
		client := feedv1.NewFeedServiceClient(link.Dial())
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		for range 100 {
			if _, err := takeAndReturn(ctx, client, "alerts", 1); err != nil {
				l.Fatal(err)
			}
		}
		patient, stop := context.WithTimeout(l.Context(), time.Hour)
		defer stop()
		start := time.Now()
		_, err := take(patient, client, "alerts", 1)
		if took := time.Since(start); took != time.Hour || status.Code(err) != codes.DeadlineExceeded {
			l.Errorf("with 100 places taken, Watch returned %v after %v, want DeadlineExceeded after an hour", err, took)
		}
		cancel()
		time.Sleep(time.Second)
		_, again := take(l.Context(), client, "alerts", 1)
		if again != nil {
			l.Errorf("with all places given back, Watch returned %v", again)
		}
		l.Logf("call 101 of 100: %v after an hour; after the cancel: %v", status.Code(err), again)
	}, lab.Lasts(2*time.Hour))
}
