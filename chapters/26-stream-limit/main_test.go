package main

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const aDay = 24 * time.Hour

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// scene is a server with a limit, and one connection to it.
type scene struct {
	*lab.Lab
	*server
	link    *lab.Link
	srv     *grpc.Server
	conn    *grpc.ClientConn
	client  feedv1.FeedServiceClient
	ctx     context.Context // of all streams, unless the test makes one
	release func()          // lets the deaf handlers return

	running atomic.Int32   // handlers of Watch
	heard   atomic.Int32   // lines, by Chat
	gone    chan time.Time // when Chat learned that its client is gone
}

// with runs body with a scene; limit 0 leaves the server as it is by default.
// At the end the streams are cancelled, and the deaf handlers return.
func with(l *lab.Lab, limit uint32, body func(*scene), opts ...grpc.DialOption) {
	sc := &scene{Lab: l, link: l.NewLink(), gone: make(chan time.Time, 10)}
	sc.server = &server{quiet: make(chan struct{}), handle: (*server).watch}
	sc.release = sync.OnceFunc(func() { close(sc.quiet) })
	defer sc.release()
	var cancel context.CancelFunc
	sc.ctx, cancel = context.WithCancel(l.Context())
	defer cancel()
	sc.srv = sc.link.Serve(sc, []grpc.ServerOption{grpc.MaxConcurrentStreams(limit)}[:min(limit, 1)]...)
	sc.conn = sc.link.Dial(opts...)
	sc.client = feedv1.NewFeedServiceClient(sc.conn)
	body(sc)
}

// play is with in the lab.
func play(t *testing.T, limit uint32, body func(*scene), opts ...grpc.DialOption) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) { with(l, limit, body, opts...) }, lab.Lasts(10*aDay))
}

// Watch does what its topic says.
func (sc *scene) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	sc.running.Add(1)
	defer sc.running.Add(-1)
	topic := &server{handle: sc.handle} // lasts as long as its client wants
	if req.GetTopic() == "deaf" {
		topic = &server{handle: (*server).watchDeaf, quiet: sc.quiet}
	}
	return topic.Watch(req, stream)
}

// Chat echoes, and needs a millisecond for it.
func (sc *scene) Chat(stream chatServer) error {
	for {
		msg, err := stream.Recv()
		if err != nil {
			sc.gone <- time.Now()
			return err
		}
		sc.heard.Add(1)
		time.Sleep(time.Millisecond)
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
}

func (sc *scene) Publish(context.Context, *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	return &feedv1.PublishResponse{}, nil
}

// show logs what the test saw, and if that is not right, what it wanted: the
// rest of format, from ", want".
func (sc *scene) show(right bool, format string, args ...any) {
	sc.Helper()
	text := fmt.Sprintf(format, args...)
	if !right {
		sc.Error(text)
	}
	saw, _, _ := strings.Cut(text, ", want")
	sc.Log(saw)
}

func (sc *scene) must(err error) {
	sc.Helper()
	if err != nil {
		sc.Fatal(err)
	}
}

// open opens a Watch and waits for its handler.
func (sc *scene) open(topic string) (watchClient, context.CancelFunc) {
	sc.Helper()
	ctx, cancel := context.WithCancel(sc.ctx)
	stream, err := sc.client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	sc.must(err)
	_, err = stream.Header()
	sc.must(err)
	return stream, cancel
}

// fill opens n streams, one after the other, without waiting for the server.
func (sc *scene) fill(n int) {
	sc.Helper()
	for range n {
		_, err := sc.client.Watch(sc.ctx, &feedv1.WatchRequest{Topic: "builds"})
		sc.must(err)
	}
}

// cancelDeaf leaves n deaf handlers to which the client has no stream any more.
func (sc *scene) cancelDeaf(n int) {
	sc.Helper()
	for range n {
		_, cancel := sc.open("deaf")
		cancel()
	}
}

// chat opens a chat and returns when an echo has come.
func (sc *scene) chat(ctx context.Context) chatClient {
	sc.Helper()
	chat, err := sc.client.Chat(ctx)
	sc.must(err)
	sc.must(echo(chat))
	return chat
}

// A try is an opening on a goroutine of its own.
type try struct {
	done   chan bool // gets a value at the end
	took   time.Duration
	stream watchClient
	err    error
}

func (sc *scene) try(ctx context.Context, topic string, opts ...grpc.CallOption) *try {
	t, start := &try{done: make(chan bool, 1)}, time.Now()
	go func() {
		t.stream, t.err = sc.client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}, opts...)
		t.took = time.Since(start)
		t.done <- true
	}()
	return t
}

func (t *try) waits() bool { return len(t.done) == 0 }

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// opened counts the streams that the client has opened on the wire.
func (sc *scene) opened() int {
	return strings.Count(sc.link.Ladder(), "HEADERS  /feed.v1.FeedService/")
}

// The recording that the README shows: a wait for a place, and a connection
// that stands still.
func TestTheRecordingIsFresh(t *testing.T) {
	var ladders []string
	play(t, 1, func(sc *scene) {
		sc.link.Mark()
		sc.client = feedv1.NewFeedServiceClient(sc.link.Dial())
		_, cancel := sc.open("deploys")
		sc.link.Note(lab.Client, "client.Watch(builds) is called, and waits")
		second := sc.try(sc.ctx, "builds")
		time.Sleep(time.Second)
		sc.link.Note(lab.Client, "the stream of deploys is cancelled")
		cancel()
		<-second.done
		sc.Settle()
		sc.link.Note(lab.Client, "client.Watch(builds) returns")
		second.stream.Header()
		ladders = append(ladders, sc.link.Ladder())
	})
	play(t, 2, func(sc *scene) {
		chat := sc.chat(sc.ctx)
		_, cancel := sc.open("deaf")
		sc.link.Mark()
		cancel()
		time.Sleep(time.Millisecond)
		sc.fill(1)
		sc.link.Note(lab.Client, "client.Watch(builds) returns at once")
		time.Sleep(time.Millisecond)
		sc.link.Note(lab.Client, "the chat, a healthy stream, says a line")
		chat.Send(&feedv1.ChatMessage{Text: "are you there?"})
		time.Sleep(10*time.Second - 2*time.Millisecond)
		sc.link.Note(lab.Server, "the handler of the cancelled stream returns")
		sc.release()
		chat.Recv()
		_, ladder, _ := strings.Cut(sc.link.Ladder(), "\n")
		ladders = append(ladders, ladder)
	})
	lab.Golden(t, "wire.txt", strings.Join(ladders, "\n"))
}

// internal/transport/http2_server.go, NewServerTransport.
func TestTheServerSaysItsLimitInItsSettings(t *testing.T) {
	for limit, want := range []string{"MAX_FRAME_SIZE=16384", "MAX_FRAME_SIZE=16384 MAX_CONCURRENT_STREAMS=1"} {
		play(t, uint32(limit), func(sc *scene) {
			sc.link.Mark()
			sc.link.Dial()
			got := sc.link.Frames()[1]
			sc.show(got.From == lab.Server && got.Type == "SETTINGS" && got.Text == want, "limit %d (0 is the default): the server's first frame is %s %s, want SETTINGS %s", limit, got.Type, got.Text, want)
		})
	}
}

// internal/transport/http2_client.go, NewStream: checkForStreamQuota and the
// select below it. WaitForReady is for a connection, not for a place on it.
func TestTheStreamThatIsOneTooManyWaits(t *testing.T) {
	for _, n := range []int{1, 2, 100} {
		for _, ready := range []bool{false, true} {
			play(t, uint32(n), func(sc *scene) {
				sc.fill(n - 1)
				_, cancel := sc.open("the last place")
				one := sc.try(sc.ctx, "", grpc.WaitForReady(ready))
				unary := make(chan error, 1)
				go func() {
					_, err := sc.client.Publish(sc.ctx, &feedv1.PublishRequest{}, grpc.WaitForReady(ready))
					unary <- err
				}()
				time.Sleep(aDay)
				sc.show(one.waits() && len(unary) == 0 && sc.opened() == n, "%d places, WaitForReady %v, a day later: stream %d waits: %v, a unary call has returned: %v, %d HEADERS sent", n, ready, n+1, one.waits(), len(unary) > 0, sc.opened())
				cancel()
				<-one.done
				sc.must(one.err)
			})
		}
	}
}

// The client takes a place back when the stream ends for it: its own cancel at
// once (http2_client.go, closeStream: addBackStreamQuota), a handler's return
// when the trailers have arrived.
func TestThePlaceIsTakenAtTheMomentItIsFree(t *testing.T) {
	for _, tt := range []struct {
		what         string
		end          func(sc *scene, cancel func())
		opened, runs time.Duration // later: client.Watch returns, the handler begins
	}{
		{"a cancel", func(sc *scene, cancel func()) { cancel(); sc.release() }, 0, lab.Latency},
		{"its handler's return", func(sc *scene, _ func()) { sc.release() }, lab.Latency, 2 * lab.Latency},
	} {
		play(t, 2, func(sc *scene) {
			sc.fill(1)
			stream, cancel := sc.open("deaf")
			go stream.Recv()
			one := sc.try(sc.ctx, "")
			time.Sleep(time.Hour)
			start := time.Now()
			tt.end(sc, cancel)
			<-one.done
			opened := time.Since(start)
			sc.must(one.err)
			one.stream.Header()
			runs := time.Since(start) - lab.Latency
			sc.show(opened == tt.opened && runs == tt.runs, "%s ends a stream: client.Watch of the waiting one returns %v later, its handler begins %v later, want %v, %v", tt.what, opened, runs, tt.opened, tt.runs)
		})
	}
}

func TestTheErrorDoesNotSayWhatWasMissing(t *testing.T) {
	play(t, 2, func(sc *scene) {
		sc.fill(2)
		deadline, cancel := context.WithTimeout(sc.ctx, time.Hour)
		defer cancel()
		cancelled, cancel := context.WithCancel(sc.ctx)
		time.AfterFunc(2*time.Hour, cancel)
		first, second := sc.try(deadline, ""), sc.try(cancelled, "")
		for i, one := range []*try{first, second} {
			<-one.done
			want := []string{"rpc error: code = DeadlineExceeded desc = context deadline exceeded", "rpc error: code = Canceled desc = context canceled"}[i]
			sc.show(one.err != nil && one.err.Error() == want && one.took == time.Duration(i+1)*time.Hour && sc.opened() == 2, "after %v: %v, and %d streams were opened, want %q after %dh and 2", one.took, one.err, sc.opened(), want, i+1)
		}
	})
}

// A connection that ends takes its waiting streams along. They are new to the
// next one: gRPC opens them there, if there is one.
func TestAWaitEndsWithItsConnection(t *testing.T) {
	for _, tt := range []struct {
		what string
		end  func(*scene)
		want codes.Code
		took time.Duration
	}{
		{"conn.Close", func(sc *scene) { sc.conn.Close() }, codes.Canceled, 0},
		{"srv.Stop", func(sc *scene) { sc.srv.Stop() }, codes.Unavailable, 3 * lab.Latency}, // the client hears of it, dials, and is refused
		{"srv.GracefulStop", func(sc *scene) { go sc.srv.GracefulStop() }, codes.Unavailable, 3 * lab.Latency},
		{"a cut, and the network is back", func(sc *scene) { sc.link.Cut(); sc.link.Heal() }, codes.OK, 3 * lab.Latency},
	} {
		play(t, 2, func(sc *scene) {
			sc.fill(2)
			one := sc.try(sc.ctx, "")
			time.Sleep(time.Hour)
			tt.end(sc)
			<-one.done
			took := one.took - time.Hour
			sc.show(status.Code(one.err) == tt.want && took == tt.took, "%s: client.Watch returned %v after %v, want %v after %v", tt.what, one.err, took, tt.want, tt.took)
		})
	}
}

// Until it has the server's SETTINGS a client takes the limit for 100
// (defaultMaxStreamsClient). But NewHTTP2Client returns when it has them, and
// no stream is opened before: a burst never exceeds the limit.
func TestABurstOnAFreshConnectionKeepsToTheLimit(t *testing.T) {
	const burst = 150
	for _, tt := range []struct {
		limit uint32
		want  int
	}{{2, 2}, {120, 120}, {0, burst}} {
		play(t, tt.limit, func(sc *scene) {
			sc.link.Cut()
			time.Sleep(time.Second)
			sc.link.Heal()
			sc.link.Mark()
			var all []*try
			for range burst {
				all = append(all, sc.try(sc.ctx, ""))
			}
			time.Sleep(time.Minute)
			open := 0
			for _, one := range all {
				if !one.waits() {
					open++
				}
			}
			sc.show(open == tt.want && sc.opened() == tt.want, "a new connection, limit %d (0 is none): of %d streams at once %d are open, %d on the wire, want %d", tt.limit, burst, open, sc.opened(), tt.want)
		})
	}
}

func TestADumpShowsWhoWaits(t *testing.T) {
	play(t, 2, func(sc *scene) {
		sc.fill(2)
		for range 7 {
			sc.try(sc.ctx, "")
		}
		sc.Settle()
		n := strings.Count(stacks(), "transport.(*http2Client).NewStream(")
		sc.show(n == 7, "7 streams wait: the dump shows %d goroutines in (*http2Client).NewStream", n)
	})
}

func TestAnotherConnectionHasPlacesOfItsOwn(t *testing.T) {
	for _, deaf := range []int{0, 2} {
		play(t, 2, func(sc *scene) {
			sc.cancelDeaf(deaf)
			sc.fill(2)
			sc.client = feedv1.NewFeedServiceClient(sc.link.Dial())
			start := time.Now()
			sc.fill(1)
			sc.chat(sc.ctx)
			took, want := time.Since(start), time.Millisecond+2*lab.Latency
			sc.show(took == want, "beside a full connection with %d deaf handlers another one opens two streams, and an echo takes %v, want %v", deaf, took, want)
		})
	}
}

func TestOpenWithinBoundsBothWaitsAndNotTheStream(t *testing.T) {
	for _, tt := range []struct {
		what       string
		deaf, open int
		after      time.Duration
		want       string
	}{
		{"a full connection", 0, 2, 5 * time.Second, "no connection with a place within 5s"},
		{"a frozen connection", 2, 1, 5 * time.Second, "a place, but no header within 5s"},
		{"a free place", 0, 1, 2 * lab.Latency, ""},
	} {
		play(t, 2, func(sc *scene) {
			sc.cancelDeaf(tt.deaf)
			sc.fill(tt.open)
			start := time.Now()
			stream, _, err := openWithin(sc.ctx, sc.client, "deploys", 5*time.Second)
			took := time.Since(start)
			sc.show(status.Convert(err).Message() == tt.want && took == tt.after, "%s: openWithin returned %v after %v, want %q after %v", tt.what, err, took, tt.want, tt.after)
			if err == nil {
				time.Sleep(7 * aDay)
				sc.show(stream.Context().Err() == nil && sc.running.Load() == 2, "a week later %d handlers run, want 2", sc.running.Load())
			}
		})
	}
}

// The client's place is free when it cancels, the server's when the handler
// returns. The stream that the client opens meanwhile makes the server's reader
// wait (server.go, serveStreams: streamQuota.acquire, since grpc-go#6703), and
// the reader is the only one on its connection.
func TestADeafHandlerFreezesItsConnection(t *testing.T) {
	play(t, 2, func(sc *scene) {
		chat := sc.chat(sc.ctx)
		sc.cancelDeaf(1)
		start := time.Now()
		sc.fill(1)
		opened := time.Since(start)
		time.AfterFunc(time.Hour, sc.release)
		err := echo(chat)
		took, want := time.Since(start), time.Hour+time.Millisecond+lab.Latency
		sc.show(opened == 0 && err == nil && took == want, "the next stream is open after %v, the deaf handler returns after 1h, the healthy chat's echo comes after %v (%v), want %v", opened, took, err, want)
	})
}

// On the wire the cancel comes first, then the new stream, then the line: so the
// reader meets them in this order over TCP, too.
func TestADeafHandlerFreezesItsConnectionOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		with(l, 2, func(sc *scene) {
			chat := sc.chat(sc.ctx)
			sc.cancelDeaf(1)
			sc.fill(1)
			sc.must(chat.Send(&feedv1.ChatMessage{Text: "are you there?"}))
			for !strings.Contains(stacks(), "grpc.(*atomicSemaphore).acquire(") {
				runtime.Gosched()
			}
			before := sc.heard.Load()
			sc.release()
			_, err := chat.Recv()
			sc.show(err == nil && before == 1 && sc.heard.Load() == 2, "before the deaf handler returns %d line has been heard, then %d (%v), want 1, 2", before, sc.heard.Load(), err)
		})
	})
}

// A frozen connection is one whose server reads nothing.
func TestNoHandlerOfAFrozenConnectionHearsItsClient(t *testing.T) {
	for _, tt := range []struct {
		what     string
		end      func(sc *scene, cancel func())
		deadline time.Duration
		late     time.Duration // until a listening handler knows
	}{
		{"cancels", func(_ *scene, cancel func()) { cancel() }, aDay, time.Hour},
		{"closes the connection", func(sc *scene, _ func()) { sc.conn.Close() }, aDay, time.Hour},
		{"has set a deadline, and that passes", func(*scene, func()) {}, time.Minute, lab.Latency},
	} {
		play(t, 2, func(sc *scene) {
			end := time.Now().Add(time.Minute)
			ctx, cancel := context.WithTimeout(sc.ctx, tt.deadline)
			defer cancel()
			sc.chat(ctx)
			sc.cancelDeaf(1)
			sc.fill(1)
			time.Sleep(time.Until(end))
			tt.end(sc, cancel)
			time.AfterFunc(time.Hour, sc.release)
			late := (<-sc.gone).Sub(end)
			sc.show(late == tt.late, "the client %s: a listening handler knows %v later, want %v", tt.what, late, tt.late)
		})
	}
}

// wire is what an event of each takes: a message has five bytes for gRPC.
const wire = 5 + 1024

// each sends an event of 1 KiB each second.
func (s *server) each(stream watchServer) error {
	for {
		time.Sleep(time.Second)
		if err := stream.Send(&feedv1.Event{Body: strings.Repeat("x", 1024-3)}); err != nil {
			return err
		}
	}
}

// The other direction goes on, for as long as it needs nothing from the client:
// the updates of its window are not read either.
func TestEventsFlowOnUntilTheWindowIsUsedUp(t *testing.T) {
	play(t, 2, func(sc *scene) {
		sc.handle = (*server).each
		stream, _ := sc.open("events")
		sc.cancelDeaf(1)
		sc.fill(1)
		time.AfterFunc(time.Hour, sc.release)
		n, start := 0, time.Now()
		for ; time.Since(start) < time.Hour; n++ {
			_, err := stream.Recv()
			sc.must(err)
		}
		late := time.Since(start)
		sc.show(n-1 == lab.Window/wire && late == time.Hour+lab.Latency, "%d events of %d B come, the next one when the deaf handler has returned, after %v, want %d and an hour", n-1, wire, late, lab.Window/wire)
	})
}

// Nobody reads the client's ping, and nobody the answer to the server's
// (http2_server.go, keepalive), which closes the connection and ends its streams.
func TestKeepaliveEndsAFrozenConnectionAndNotAFullOne(t *testing.T) {
	params := grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Minute, Timeout: 20 * time.Second})
	for _, tt := range []struct {
		whose string
		opts  []grpc.DialOption
		want  time.Duration
	}{
		{"the client's", []grpc.DialOption{params}, 10*time.Minute + 20*time.Second},
		{"the server's", nil, 2*time.Hour + 20*time.Second + 2*lab.Latency}, // since its last read
	} {
		play(t, 2, func(sc *scene) {
			chat := sc.chat(sc.ctx)
			sc.cancelDeaf(1)
			sc.fill(1)
			start := time.Now()
			_, err := chat.Recv()
			took := time.Since(start)
			sc.show(took == tt.want && status.Code(err) == codes.Unavailable, "frozen, %s keepalive: the healthy chat ends after %v: %v, want Unavailable after %v", tt.whose, took, err, tt.want)
			if tt.opts == nil {
				heard := (<-sc.gone).Sub(start)
				sc.show(heard == tt.want-lab.Latency, "its handler, which listens, hears of it after %v, want %v", heard, tt.want-lab.Latency)
			}
		}, tt.opts...)
	}
	play(t, 2, func(sc *scene) {
		sc.fill(2)
		one := sc.try(sc.ctx, "")
		time.Sleep(aDay)
		sc.show(one.waits() && sc.running.Load() == 2, "full: a day later %d streams live, and the third waits: %v", sc.running.Load(), one.waits())
	}, params)
}

func TestEachDeafHandlerTakesAPlaceOfItsConnection(t *testing.T) {
	for deaf := 1; deaf < 5; deaf++ {
		play(t, 10, func(sc *scene) {
			sc.cancelDeaf(deaf)
			var err error
			n := -1
			for ; err == nil && n < 10; n++ {
				_, _, err = openWithin(sc.ctx, sc.client, "deploys", time.Second)
			}
			sc.show(n == 10-deaf && status.Convert(err).Message() == "a place, but no header within 1s", "10 places, %d deaf handlers without a client: %d streams open, and the next one: %v, want %d", deaf, n, err, 10-deaf)
		})
	}
}

func TestListeningHandlersDoNotFreezeTheirConnection(t *testing.T) {
	play(t, 2, func(sc *scene) {
		chat, want := sc.chat(sc.ctx), time.Millisecond+2*lab.Latency
		for range 100 {
			_, cancel := sc.open("deploys")
			cancel()
			start := time.Now()
			if err := echo(chat); err != nil || time.Since(start) != want {
				sc.Fatalf("while streams come and go an echo takes %v (%v), want %v", time.Since(start), err, want)
			}
		}
		sc.Logf("100 streams come and go, and the chat's echo always takes %v", want)
	})
}
