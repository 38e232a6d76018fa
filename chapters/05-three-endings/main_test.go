package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// A stage is an open stream with both its ends in the hands of the test.
type stage struct {
	scene
	ending
	timeout time.Duration // of the stream, if its deadline is to pass
	early   bool          // the server's own timer runs out before the client's
	stats   stats.Handler // on the client
	handler func(chatServer) error

	ctx    context.Context // that the stream is opened with
	link   *lab.Link
	client chatClient
	server chatServer
}

// A timeout from 100 ms on crosses the wire in whole microseconds, rounded up
// (internal/grpcutil/encode_duration.go). With this one the client's reset
// arrives 500 ns before the server's own timers run out.
const resetFirst = 200*time.Millisecond + 500*time.Nanosecond

// overTCP is the timeout in real time. There is a tie at the server then.
const overTCP = 50 * time.Millisecond

// open opens the stream. Unless the test has a handler of its own, the
// handler waits for what it is to return, or for the end of its context.
func (s *stage) open(l *lab.Lab) *stage {
	l.Helper()
	opened, answer := make(chan chatServer, 1), make(chan error, 1)
	handler := s.handler
	if handler == nil {
		handler = func(stream chatServer) error {
			select {
			case err := <-answer:
				return err
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}
	}
	var opts []grpc.ServerOption
	if s.early {
		opts = append(opts, grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
			deadline, _ := ctx.Deadline()
			early, cancel := context.WithDeadline(ctx, deadline.Add(-20*time.Millisecond))
			context.AfterFunc(ctx, cancel)
			return early, nil
		}))
	}
	s.link = l.NewLink()
	s.srv = s.link.Serve(server{chat: func(stream chatServer) error {
		opened <- stream
		return handler(stream)
	}}, opts...)
	var dial []grpc.DialOption
	if s.stats != nil {
		dial = append(dial, grpc.WithStatsHandler(s.stats))
	}
	s.conn = s.link.Dial(dial...)
	if s.bring != nil || s.timeout == 0 {
		s.timeout = time.Hour
	}
	s.ctx, s.cancel = context.WithTimeout(context.Background(), s.timeout)
	s.answer, s.cut = func(err error) { answer <- err }, s.link.Cut
	var err error
	if s.client, err = feedv1.NewFeedServiceClient(s.conn).Chat(s.ctx); err == nil {
		select {
		case s.server = <-opened:
			return s
		case <-s.ctx.Done():
		}
	}
	// In real time a busy machine can be too slow for the deadline.
	s.cancel()
	s.timeout *= 2
	return s.open(l)
}

// end ends the stream, or waits until its deadline does.
func (s *stage) end() {
	if s.bring != nil {
		s.bring(s.scene)
	} else {
		<-s.ctx.Done()
	}
}

// A call is Recv or Send on one side. It returns what the call returns at the
// end of the stream: Send is called until it waits for the windows.
type call struct {
	side lab.Side
	name string
}

func calls() []call {
	return []call{{lab.Client, "Recv"}, {lab.Client, "Send"}, {lab.Server, "Recv"}, {lab.Server, "Send"}}
}

func (c call) String() string { return c.side.String() + " " + c.name }

func (c call) on(s *stage) error {
	recv, send := s.client.Recv, s.client.Send
	if c.side == lab.Server {
		recv, send = s.server.Recv, s.server.Send
	}
	if c.name == "Recv" {
		_, err := recv()
		return err
	}
	for {
		if err := send(&feedv1.ChatMessage{Text: strings.Repeat("x", 1000)}); err != nil {
			return err
		}
	}
}

// see begins the call, ends the stream while it waits, and returns what the
// call says, and what it says when it is made three times more. Over TCP it
// may not wait yet; TestEachCallSaysTheSameAgainAndLater.
func (s *stage) see(wait func(), c call) (said []error) {
	done := make(chan bool)
	defer s.cancel()
	if c.side == lab.Server { // or a first Send and the handler's return race for the header
		s.server.SendHeader(nil)
	}
	go func() {
		defer close(done)
		for range 4 {
			said = append(said, c.on(s))
		}
	}()
	wait()
	s.end()
	<-done
	return said
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows: three streams, one after the other.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(server{chat: func(stream chatServer) error {
			_, err := stream.Recv()
			link.Note(lab.Server, "Recv: %s", word(err))
			time.Sleep(time.Millisecond) // what an answer takes
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}})
		client := feedv1.NewFeedServiceClient(link.Dial())
		for _, end := range []func(chatClient, func()){
			func(stream chatClient, _ func()) { stream.CloseSend() },
			func(_ chatClient, cancel func()) { link.Note(lab.Client, "cancel()"); cancel() },
			func(chatClient, func()) { link.Note(lab.Client, "[the network is cut]"); link.Cut() },
		} {
			ctx, cancel := context.WithCancel(l.Context())
			stream, err := client.Chat(ctx)
			if err != nil {
				l.Fatal(err)
			}
			time.AfterFunc(20*time.Millisecond, func() { end(stream, cancel) })
			_, err = stream.Recv()
			link.Note(lab.Client, "Recv: %s", word(err))
			cancel()
			time.Sleep(10 * time.Millisecond)
		}
		lab.Golden(t, "wire.txt", link.Ladder())
	})
}

// The table that the README shows: in the lab cell by cell, and over TCP all
// cells at once. Where the deadline is a tie, the lab also plays it with the
// server's timer first.
func TestTheTableIsMeasured(t *testing.T) {
	var mu sync.Mutex
	real := map[string]string{}
	lab.OverTCP(t, func(l *lab.Lab) {
		var cells sync.WaitGroup
		for _, e := range endings() {
			for _, c := range calls() {
				cells.Go(func() {
					err := (&stage{ending: e, timeout: overTCP}).open(l).see(func() {}, c)[0]
					mu.Lock()
					defer mu.Unlock()
					real[e.name+c.String()] = word(err)
				})
			}
		}
		cells.Wait()
	})
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "end of the stream")
	for _, c := range calls() {
		fmt.Fprintf(w, "\t%v", c)
	}
	fmt.Fprintln(w)
	for _, e := range endings() {
		row, below := e.name, ""
		for _, c := range calls() {
			virtual := map[string]bool{}
			for _, early := range []bool{false, true} {
				if early && (e.bring != nil || c.side == lab.Client) {
					break
				}
				lab.Run(t, func(l *lab.Lab) {
					s := &stage{ending: e, timeout: resetFirst, early: early}
					virtual[word(s.open(l).see(synctest.Wait, c)[0])] = true
				})
			}
			words := slices.Sorted(maps.Keys(virtual))
			if said := real[e.name+c.String()]; !virtual[said] { // of a tie TCP meets one side
				t.Errorf("%s, %v: TCP says %q and the lab %q", e.name, c, said, words)
			}
			row += "\t" + words[0]
			below += "\t"
			if len(words) > 1 {
				row += " or"
				below += words[1]
			}
		}
		fmt.Fprintln(w, row)
		if strings.Trim(below, "\t") != "" {
			fmt.Fprintln(w, below)
		}
	}
	w.Flush()
	lab.Golden(t, "table.txt", table.String())
	t.Logf("\n%s", table.String())
}

// each runs a test in the lab for each cell of the table.
func each(t *testing.T, body func(l *lab.Lab, s *stage, c call)) {
	t.Helper()
	for _, e := range endings() {
		for _, c := range calls() {
			lab.Run(t, func(l *lab.Lab) { body(l, (&stage{ending: e, timeout: resetFirst}).open(l), c) })
		}
	}
}

func TestEachCallSaysTheSameAgainAndLater(t *testing.T) {
	each(t, func(l *lab.Lab, s *stage, c call) {
		said := s.see(synctest.Wait, c)
		later := (&stage{ending: s.ending, timeout: resetFirst}).open(l)
		defer later.cancel()
		later.end()
		time.Sleep(time.Second)
		for _, again := range append(said[1:], c.on(later)) {
			if again.Error() != said[0].Error() {
				l.Errorf("%s, %v: first %v, and then %v", s.name, c, said[0], again)
			}
		}
	})
	t.Logf("28 cells: one text from a call that waits, from three more, and from one that begins a second after the end")
}

func TestNoCallReturnsTheErrorOfAContext(t *testing.T) {
	isContext := func(err error) bool {
		return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	}
	each(t, func(l *lab.Lab, s *stage, c call) {
		if err := s.see(synctest.Wait, c)[0]; isContext(err) {
			l.Errorf("%s, %v: %v is the error of a context", s.name, c, err)
		}
	})
	lab.Run(t, func(l *lab.Lab) {
		s := (&stage{}).open(l)
		s.cancel()
		if _, err := feedv1.NewFeedServiceClient(s.conn).Chat(s.ctx); status.Code(err) != codes.Canceled || isContext(err) {
			l.Errorf("a stream that is opened with a context that has ended: %v, want a status with code Canceled", err)
		}
		time.Sleep(time.Second)
		if err := s.server.Context().Err(); !isContext(err) || status.Code(err) != codes.Unknown {
			l.Errorf("the context of the handler's stream says %v, code %v, want the context's own error, which has no code", err, status.Code(err))
		}
	})
	t.Logf("28 cells: errors.Is(err, context.Canceled) is false; only stream.Context().Err() is that, and its code is Unknown")
}

func names(rows ...int) (all []string) {
	for _, row := range rows {
		all = append(all, endings()[row].name)
	}
	return all
}

func TestFollowReportsAllButItsOwnContext(t *testing.T) {
	var byError, byContext []string
	for _, e := range endings() {
		lab.Run(t, func(l *lab.Lab) {
			s := (&stage{ending: e, timeout: resetFirst}).open(l)
			defer s.cancel()
			reported := make(chan error, 1)
			go func() { reported <- follow(s.ctx, s.client) }()
			synctest.Wait()
			s.end()
			if <-reported != nil {
				byContext = append(byContext, e.name)
			}
			if followByError(s.client) != nil { // Recv says the same again
				byError = append(byError, e.name)
			}
		})
	}
	if want := names(1, 2, 3, 4, 5, 6); !slices.Equal(byError, want) {
		t.Errorf("followByError reports %q, want %q", byError, want)
	}
	if want := names(1, 4, 5, 6); !slices.Equal(byContext, want) {
		t.Errorf("follow reports %q, want %q", byContext, want)
	}
	t.Logf("followByError reports %d of 7 endings, follow %d: %s", len(byError), len(byContext), strings.Join(byContext, ", "))
}

func TestListenRaisesNoAlarmForALostStream(t *testing.T) {
	var byEOF, byCode []string
	for _, e := range endings()[2:] {
		lab.Run(t, func(l *lab.Lab) {
			s := (&stage{ending: e, timeout: resetFirst}).open(l)
			defer s.cancel()
			done := make(chan bool)
			go func() {
				defer close(done)
				listen(s.server, func(error) { byCode = append(byCode, e.name) })
			}()
			synctest.Wait()
			s.end()
			<-done
			listenByEOF(s.server, func(error) { byEOF = append(byEOF, e.name) }) // Recv says the same again
		})
	}
	if want := names(2, 3, 4, 5, 6); !slices.Equal(byEOF, want) || len(byCode) != 0 {
		t.Errorf("listenByEOF raised alarms for %q and listen for %q, want %q and none", byEOF, byCode, want)
	}
	t.Logf("five ways to lose a stream: listenByEOF raises %d alarms, listen %d", len(byEOF), len(byCode))
}

func TestAMessageThatCannotBeReadIsNoLostStream(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		alarms := make(chan error, 1)
		s := (&stage{handler: func(stream chatServer) error {
			return listen(stream, func(err error) { alarms <- err })
		}}).open(l)
		defer s.cancel()
		s.client.Send(&feedv1.ChatMessage{Text: strings.Repeat("x", 5<<20)}) // the limit is 4 MiB
		_, err := s.client.Recv()
		alarm := <-alarms
		if status.Code(err) != codes.ResourceExhausted || status.Code(alarm) != codes.ResourceExhausted {
			l.Errorf("listen raised the alarm %v, and the client got %v, want ResourceExhausted in both", alarm, err)
		}
		l.Logf("an alarm, %v, and the client is there to read it", alarm)
	})
}

// elsewhere is the end of a context that the client knows nothing of.
func elsewhere(end error) ending {
	return ending{"upstream of the server ends", func(s scene) { s.answer(end) }}
}

func TestTheServersCancelReadsLikeYours(t *testing.T) {
	for i, end := range []error{context.Canceled, context.DeadlineExceeded} {
		lab.Run(t, func(l *lab.Lab) {
			yours := (&stage{ending: endings()[2+i], timeout: resetFirst}).open(l)
			made := yours.see(synctest.Wait, calls()[0])[0]
			theirs := (&stage{ending: elsewhere(end)}).open(l)
			defer theirs.cancel()
			theirs.end()
			sent := follow(theirs.ctx, theirs.client)
			if sent == nil || sent.Error() != made.Error() || !errors.Is(sent, made) {
				l.Errorf("for the server's end follow reports %v, want what reads like your own, %v", sent, made)
			}
			if !endedBy(yours.ctx, made) {
				l.Errorf("your context ended the stream with %v, and endedBy denies it", made)
			}
			l.Logf("%v: sent by the server, and made by your own context", sent)
		})
	}
}

func TestACancelAfterTheEndChangesNothing(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		s := (&stage{ending: endings()[1]}).open(l)
		err := s.see(synctest.Wait, calls()[0])[0] // see cancels when it is done
		if s.ctx.Err() == nil || endedBy(s.ctx, err) {
			l.Errorf("the server failed with %v, then the context ended (%v): endedBy takes the one for the other", err, s.ctx.Err())
		}
		l.Logf("the stream: %v, and later the context: %v", err, s.ctx.Err())
	})
}

func TestAServersCancelIsToldFromYoursUntilYouCancel(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		s := (&stage{ending: elsewhere(context.Canceled)}).open(l)
		s.end()
		_, err := s.client.Recv()
		atOnce := endedBy(s.ctx, err)
		s.cancel()
		if later := endedBy(s.ctx, err); atOnce || !later {
			l.Errorf("the server sent %v: at once endedBy says %v, and after a cancel %v, want false and true", err, atOnce, later)
		}
		l.Logf("the server sent %v: endedBy says %v, and after a cancel of your own true", err, atOnce)
	})
}

// atOnce opens 100 streams over TCP whose deadlines pass at about one time,
// and hands over what each client's Recv said.
func atOnce(t *testing.T, handler func(chatServer) error, client func(context.Context, error)) {
	t.Helper()
	lab.OverTCP(t, func(l *lab.Lab) {
		link := l.NewLink()
		srv := link.Serve(server{chat: handler}, grpc.WaitForHandlers(true))
		feed := feedv1.NewFeedServiceClient(link.Dial())
		var streams sync.WaitGroup
		for range 100 {
			ctx, cancel := context.WithTimeout(context.Background(), overTCP)
			defer cancel()
			if stream, err := feed.Chat(ctx); err == nil { // a busy machine can be too slow
				streams.Go(func() { _, err := stream.Recv(); client(ctx, err) })
			}
		}
		streams.Wait()
		srv.Stop() // waits for the handlers
	})
}

func listenQuietly(stream chatServer) error { return listen(stream, func(error) {}) }

// lateTimer is a context whose timer runs 15 ms late.
type lateTimer struct{ context.Context }

func (c lateTimer) Deadline() (time.Time, bool) {
	deadline, ok := c.Context.Deadline()
	return deadline.Add(-15 * time.Millisecond), ok
}

// A server that notices the deadline first resets the stream or sends a
// status. Of a reset gRPC asks the clock, not the context, whether it was the
// deadline (internal/transport/http2_client.go, handleRSTStream).
func TestADeadlineCanBeHereBeforeItsTimer(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: listenQuietly})
		late, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		ctx := lateTimer{late}
		stream, err := client.Chat(ctx)
		if err != nil {
			l.Fatal(err)
		}
		_, err = stream.Recv()
		if status.Code(err) != codes.DeadlineExceeded || ctx.Err() != nil || !endedBy(ctx, err) {
			l.Errorf("Recv said %v, ctx.Err() %v and endedBy %v; want the deadline, no end of the context, and true", err, ctx.Err(), endedBy(ctx, err))
		}
		l.Logf("a timer that is late: Recv says %v, ctx.Err() is %v", status.Code(err), ctx.Err())
	})
	var ahead, missed atomic.Int32
	atOnce(t, listenQuietly, func(ctx context.Context, err error) {
		if ctx.Err() == nil {
			ahead.Add(1)
		}
		if !endedBy(ctx, err) {
			missed.Add(1)
		}
	})
	if missed.Load() > 0 {
		t.Errorf("over TCP endedBy did not know the deadline of %d streams of 100", missed.Load())
	}
	t.Logf("over TCP: %d of 100 clients had their DeadlineExceeded while ctx.Err() was nil", ahead.Load())
}

func TestTheContextOfTheClientsStreamAlwaysEnds(t *testing.T) {
	for _, e := range endings() {
		lab.Run(t, func(l *lab.Lab) {
			s := (&stage{ending: e, timeout: resetFirst}).open(l)
			defer s.cancel()
			s.end()
			s.client.Recv()
			l.Settle() // after conn.Close it may be gRPC's own goroutine that ends the stream
			own, yours := s.client.Context().Err(), s.ctx.Err()
			ended := e.name == "client cancels" || e.name == "deadline passes"
			if own == nil || (yours != nil) != ended {
				l.Errorf("%s: stream.Context().Err() is %v, and that of the context it was opened with %v", e.name, own, yours)
			}
		})
	}
	t.Logf("stream.Context().Err() is not nil after any of 7 endings, a good one too; your own ctx has ended after 2")
}

// trailers counts what a stats.Handler is told: the trailers that came.
type trailers int

func (*trailers) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*trailers) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*trailers) HandleConn(context.Context, stats.ConnStats)                       {}
func (n *trailers) HandleRPC(_ context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.InTrailer); ok {
		*n++
	}
}

func TestTheStreamDoesNotTellWhoSaidUnavailable(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		// What a client can ask the stream, and what a stats.Handler saw.
		look := func(e ending, before func(chatServer)) (view string, came trailers, err error) {
			s := (&stage{ending: e, stats: &came}).open(l)
			before(s.server)
			time.Sleep(time.Second)
			err = s.see(synctest.Wait, calls()[0])[0]
			header, _ := s.client.Header()
			return fmt.Sprintf("%v; header %v, trailer %v, details %v", err, slices.Sorted(maps.Keys(header)),
				slices.Sorted(maps.Keys(s.client.Trailer())), status.Convert(err).Details()), came, err
		}
		sendHeader := func(s chatServer) { s.SendHeader(nil) }
		made, none, err := look(endings()[4], sendHeader)
		sends := elsewhere(status.Error(codes.Unavailable, status.Convert(err).Message()))
		sent, one, _ := look(sends, sendHeader)
		if made != sent || none != 0 || one != 1 || status.Code(err) != codes.Unavailable {
			l.Errorf("from the network: %s, %d trailers; from the server: %s, %d trailers; want no difference but the trailers, 0 and 1", made, none, sent, one)
		}
		l.Logf("from the network and from the server: %s; trailers that came: %d and %d", made, none, one)
		signed, _, _ := look(sends, func(s chatServer) { s.SendHeader(nil); s.SetTrailer(metadata.Pairs("served-by", "a")) })
		if !strings.Contains(signed, "trailer [served-by]") {
			l.Errorf("from a server that signs: %s, want its trailer", signed)
		}
		early, one, _ := look(sends, func(chatServer) {})
		if one != 1 || !strings.Contains(early, "header [], trailer [content-type]") {
			l.Errorf("from a server that has sent no header: %s, want its content type in the trailer", early)
		}
		l.Logf("from a server that sets a trailer: %s", signed)
		l.Logf("from a server that fails before its header: %s", early)
	})
}

func TestNoHandlerLearnsWhyTheStreamIsLost(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		said := map[string][]string{}
		for _, e := range endings()[2:] {
			for _, c := range calls()[2:] {
				err := (&stage{ending: e, timeout: resetFirst}).open(l).see(synctest.Wait, c)[0]
				if !gone(err) {
					l.Errorf("%s, %v: gone takes %v for a failure", e.name, c, err)
				}
				text := fmt.Sprintf("%v: %v", c, err)
				said[text] = append(said[text], e.name)
			}
		}
		want := map[string][]string{
			"server Recv: rpc error: code = Canceled desc = context canceled":        names(2, 3, 4, 5, 6),
			"server Send: rpc error: code = Canceled desc = context canceled":        names(2, 3),
			"server Send: rpc error: code = Unavailable desc = transport is closing": names(4, 5, 6),
		}
		for _, text := range slices.Sorted(maps.Keys(said)) {
			l.Logf("%s: %s", text, strings.Join(said[text], ", "))
		}
		if !maps.EqualFunc(said, want, slices.Equal) {
			l.Errorf("the texts are %q, want %q", said, want)
		}
	})
}

func TestEachSideLearnsOfTheEndInItsTime(t *testing.T) {
	const far = lab.Latency
	for i, want := range [][2]time.Duration{ // client, server
		{far, 0}, {far, 0}, {0, far}, {0, far}, {0, 0}, {0, far}, {far, 0},
	} {
		e := endings()[i]
		for j, c := range []call{calls()[0], calls()[2]} {
			lab.Run(t, func(l *lab.Lab) {
				s := (&stage{ending: e, timeout: resetFirst}).open(l)
				defer s.cancel()
				learned := make(chan time.Time, 1)
				go func() { c.on(s); learned <- time.Now() }()
				synctest.Wait()
				var ended time.Time
				if s.end(); e.bring != nil {
					ended = time.Now()
				} else {
					ended, _ = s.ctx.Deadline()
				}
				if took := (<-learned).Sub(ended); took != want[j] {
					l.Errorf("%s: %v learned of it after %v, want %v", e.name, c, took, want[j])
				}
			})
		}
		t.Logf("%-22s client after %-8v server after %v", e.name, want[0], want[1])
	}
}

func TestSilenceIsNoEnd(t *testing.T) {
	for _, c := range []call{calls()[0], calls()[2]} {
		lab.Run(t, func(l *lab.Lab) {
			s := (&stage{}).open(l)
			said := make(chan error, 1)
			go func() { said <- c.on(s) }()
			synctest.Wait()
			s.link.Blackhole()
			select {
			case err := <-said:
				l.Errorf("%v returned %v, want it to wait", c, err)
			case <-time.After(59 * time.Minute): // the stream's own deadline is an hour
			}
			s.link.Heal()
			s.cancel()
			<-said
		}, lab.Lasts(2*time.Hour))
	}
	t.Logf("59 minutes after the network fell silent, Recv waits on both sides")
}

func TestTheDeadlineIsATieAtTheHandler(t *testing.T) {
	for _, tt := range []struct {
		name    string
		n       int
		timeout time.Duration
		early   bool
		want    []string
	}{
		{"the client's reset comes first", 10, resetFirst, false, []string{"Canceled"}},
		{"a timer of the server runs out first", 10, resetFirst, true, []string{"DeadlineExceeded"}},
		{"at one instant", 100, 200 * time.Millisecond, false, []string{"Canceled", "DeadlineExceeded"}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			said := map[string]int{}
			for range tt.n {
				err := (&stage{ending: endings()[3], timeout: tt.timeout, early: tt.early}).open(l).see(synctest.Wait, calls()[2])[0]
				if said[word(err)]++; !gone(err) {
					l.Fatalf("gone takes %v for a failure", err)
				}
			}
			if got := slices.Sorted(maps.Keys(said)); !slices.Equal(got, tt.want) {
				l.Errorf("%s: the handler's Recv said %v, want %q", tt.name, said, tt.want)
			}
			l.Logf("%s: %v", tt.name, said)
		})
	}
	var canceled, exceeded, other atomic.Int32
	atOnce(t, func(stream chatServer) error {
		_, err := stream.Recv()
		switch status.Code(err) {
		case codes.Canceled:
			canceled.Add(1)
		case codes.DeadlineExceeded:
			exceeded.Add(1)
		default:
			other.Add(1)
		}
		return err
	}, func(context.Context, error) {})
	t.Logf("over TCP: %d Canceled, %d DeadlineExceeded", canceled.Load(), exceeded.Load())
	if other.Load() != 0 {
		t.Errorf("over TCP %d handlers' Recv said neither Canceled nor DeadlineExceeded", other.Load())
	}
}

func TestNilAtTheDeadlineCanPassForAGoodEnd(t *testing.T) {
	returns := func(result func(context.Context) error) func(chatServer) error {
		return func(stream chatServer) error {
			<-stream.Context().Done()
			return result(stream.Context())
		}
	}
	returnsNil := returns(func(context.Context) error { return nil })
	for want, handler := range map[string]func(chatServer) error{
		"EOF": returnsNil, "DeadlineExceeded": returns(context.Context.Err),
	} {
		lab.Run(t, func(l *lab.Lab) {
			s := &stage{ending: endings()[3], timeout: resetFirst, early: true, handler: handler}
			if got := word(s.open(l).see(synctest.Wait, calls()[0])[0]); got != want {
				l.Errorf("the client's Recv said %s, want %s", got, want)
			}
		})
		t.Logf("a timer of the server runs out first, and the client's Recv says %s", want)
	}
	var good atomic.Int32
	atOnce(t, returnsNil, func(_ context.Context, err error) {
		if errors.Is(err, io.EOF) {
			good.Add(1)
		}
	})
	t.Logf("over TCP, with one deadline and handlers that return nil: %d of 100 clients had a good end", good.Load())
}
