package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// ends is a feed whose Chat hands the server's end of the stream to the test,
// which says when the handler returns.
type ends struct {
	feedv1.UnimplementedFeedServiceServer
	opened chan stream
	leave  chan error
}

func (e *ends) Chat(s grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]) error {
	e.opened <- s
	select {
	case err := <-e.leave:
		return err
	case <-s.Context().Done():
		return s.Context().Err()
	}
}

// A stream is either end of a Chat.
type stream interface {
	Send(*feedv1.ChatMessage) error
	Recv() (*feedv1.ChatMessage, error)
}

// A rig is one stream: the end that sends, and the end that receives.
type rig struct {
	*lab.Lab
	link     *lab.Link
	from, to stream
	close    func() error // CloseSend
	leave    chan<- error // ends the handler
	cancel   context.CancelFunc
	read     atomic.Int64 // messages that readAll has received
}

const down, up = "server to client", "client to server"

// open opens a stream whose windows are static, for messages in one direction.
func open(l *lab.Lab, dir string) *rig {
	l.Helper()
	ctx, cancel := context.WithCancel(l.Context())
	svc := &ends{opened: make(chan stream, 1), leave: make(chan error)}
	client, link := l.Connect(svc)
	chat, err := client.Chat(ctx)
	if err != nil {
		l.Fatal(err)
	}
	r := &rig{Lab: l, link: link, from: <-svc.opened, to: chat, close: chat.CloseSend, leave: svc.leave, cancel: cancel}
	if dir == up {
		r.from, r.to = r.to, r.from
	}
	return r
}

// text is a message of n bytes.
func text(n int) *feedv1.ChatMessage { return &feedv1.ChatMessage{Text: strings.Repeat("x", n)} }

// fill sends what the peer has room for: from here on Send blocks.
func (r *rig) fill() {
	r.Helper()
	for range full {
		r.mustSend(1024)
	}
}

func (r *rig) mustSend(size int) { r.must(nil, r.from.Send(text(size))) }
func (r *rig) mustRecv()         { r.must(r.to.Recv()) }
func (r *rig) must(_ *feedv1.ChatMessage, err error) {
	if err != nil {
		r.Fatal(err)
	}
}

// readAll receives until the stream ends.
func (r *rig) readAll() {
	for {
		if _, err := r.to.Recv(); err != nil {
			return
		}
		r.read.Add(1)
	}
}

// A call is a Send on a goroutine of its own: what it has returned, if it has.
type call chan error

func begin(send func(*feedv1.ChatMessage) error, size int) call {
	c := make(call, 1)
	go func() { c <- send(text(size)) }()
	return c
}

func returned(calls ...call) (n int) {
	for _, c := range calls {
		n += len(c)
	}
	return n
}

// block lets n goroutines Send while there is no room.
func (r *rig) block(n, size int) (calls []call) {
	r.Helper()
	r.fill()
	for range n {
		calls = append(calls, begin(r.from.Send, size))
	}
	time.Sleep(time.Second)
	if got := returned(calls...); got != 0 {
		r.Fatalf("%d of %d Sends returned while nobody read", got, n)
	}
	return calls
}

// stick lets two Sends block, reads everything, and returns the one of them
// that does not return.
func (r *rig) stick() call {
	r.Helper()
	calls := r.block(2, 1)
	for range full + 1 {
		r.mustRecv()
	}
	time.Sleep(time.Second)
	if returned(calls...) != 1 || waiting() != 1 {
		r.Fatalf("%d of 2 Sends have returned, and %d wait, want 1 and 1", returned(calls...), waiting())
	}
	return calls[returned(calls[0])]
}

// waiting counts the goroutines that wait for write quota.
func waiting() int { return strings.Count(goroutines(), "transport.(*writeQuota).get(") }

func goroutines() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// wantAnHourLater lets the peer read everything, and counts the Sends that have
// returned an hour later. The others wait for quota.
func (r *rig) wantAnHourLater(calls []call, want int) {
	r.Helper()
	go r.readAll()
	time.Sleep(time.Hour)
	if got, stuck := returned(calls...), waiting(); got != want || stuck != len(calls)-want {
		r.Errorf("%d of %d blocked Sends have returned, and %d wait for quota, want %d and %d", got, len(calls), stuck, want, len(calls)-want)
	}
	if got := r.read.Load(); got != int64(full+want) {
		r.Errorf("the peer has received %d messages, want %d", got, full+want)
	}
	r.cancel()
}

// Send takes its bytes from the stream's quota, and waits on a channel with
// one place while the quota is not positive. The writer gives bytes back, and
// posts on that channel only when the quota becomes positive: one post, one
// Send that wakes. It takes 8 bytes, the quota stays positive, and so there is
// no second post (internal/transport/flowcontrol.go, (*writeQuota).get and
// realReplenish). One of 64 KiB uses the quota up, and what comes back brings
// the next post. The channel is a channel and the quota is atomic, so that
// nothing here is a data race: the test passes with -race.
func TestOneOfTheBlockedSendsReturns(t *testing.T) {
	for _, dir := range []string{down, up} {
		for _, tt := range []struct{ n, size, want int }{
			{1, 1, 1}, {2, 1, 1}, {3, 1, 1}, {10, 1, 1}, {100, 1, 1}, {2, 64 << 10, 2}, {10, 64 << 10, 10},
		} {
			lab.Run(t, func(l *lab.Lab) {
				r := open(l, dir)
				r.wantAnHourLater(r.block(tt.n, tt.size), tt.want)
				l.Logf("%s, %5d B each: the peer has read all, and an hour later %3d of %3d Sends have returned", dir, tt.size, tt.want, tt.n)
			}, lab.Lasts(2*time.Hour))
		}
	}
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows. One event of 131,071 B on the wire, a
// window and the quota of 64 KiB together, is all that Send takes (chapter 19).
// The client's connection window is larger than that, so that the only credit
// on the wire is the stream's.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		var sent atomic.Int32
		later := func(send func(*feedv1.Event) error) error {
			time.Sleep(time.Second)
			err := sayOne(send)
			if err == nil {
				sent.Add(1)
			}
			return err
		}
		link.Serve(&server{watch: func(stream watchServer, producers []producer) error {
			err := sendTogether(stream, producers)
			link.Note(lab.Server, "the other Send returns %v, and the handler, too", status.Code(err))
			return err
		}, fill: []*feedv1.Event{{Body: strings.Repeat("x", 131_062)}}, producers: []producer{later, later}})
		client := feedv1.NewFeedServiceClient(link.Dial(grpc.WithStaticConnWindowSize(1 << 20)))
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream := watching(l, ctx, client)
		time.Sleep(1500 * time.Millisecond)
		link.Mark()
		link.Note(lab.Server, "%d goroutines wait in Send", waiting())
		time.Sleep(time.Second)
		link.Note(lab.Client, "Recv, until nothing is left")
		go rest(stream)
		time.Sleep(time.Second)
		link.Note(lab.Server, "%d of 2 Sends has returned", sent.Load())
		time.Sleep(3 * time.Hour)
		link.Note(lab.Server, "%d of 2 Sends has returned, %d goroutine waits in Send", sent.Load(), waiting())
		link.Note(lab.Client, "cancel")
		stuck := stack("transport.(*writeQuota).get(")
		cancel()
		time.Sleep(time.Second)
		lab.Golden(t, "wire.txt", link.Ladder()+stuck)
		l.Log("\n" + link.Ladder() + stuck)
	}, lab.Lasts(4*time.Hour))
}

// stack returns the goroutine that has function on its stack: what it is
// called in grpc-go and in the chapter.
func stack(function string) (out string) {
	for _, g := range strings.Split(goroutines(), "\n\n") {
		if !strings.Contains(g, function) {
			continue
		}
		lines := strings.Split(lab.Brief(g), "\n")
		out += lines[0] + "\n"
		for i, line := range lines {
			if strings.Contains(line, "writeQuota") || strings.Contains(line, "SendMsg") || strings.HasPrefix(line, "main.send") {
				out += line + "  " + strings.TrimSpace(lines[i+1]) + "\n"
			}
		}
	}
	return out
}

// A misuse is two calls at once, on one stream.
var misuses = []struct {
	calls string
	do    func(*rig) string // returns what came of it
	race  string            // what the race detector reports
}{
	{"Send and Send", func(r *rig) string {
		calls := r.block(2, 1)
		go r.readAll()
		time.Sleep(time.Hour)
		return fmt.Sprintf("an hour later %d of 2 tiny ones has returned", returned(calls...))
	}, ""},
	// CloseSend asks for no quota: END_STREAM overtakes the message, which then
	// comes on a stream that is closed (http2_server.go, handleData). Both use
	// sentLast (stream.go, (*clientStream).SendMsg and CloseSend).
	{"Send and CloseSend", func(r *rig) string {
		c := r.block(1, 1)[0]
		r.close()
		go r.readAll()
		_, err := r.from.Recv() // the RPC's end
		time.Sleep(time.Hour)
		if n := r.read.Load(); n > full || n < full-16 || !strings.Contains(fmt.Sprint(err), "STREAM_CLOSED") {
			return fmt.Sprintf("the server has received %d messages; %v", n, err)
		}
		return fmt.Sprintf("Send returns %v, its message is lost; %v: STREAM_CLOSED", <-c, status.Code(err))
	}, "grpc.(*clientStream).CloseSend()"},
	// The second frame of the message goes to the other Recv, which takes "xxxxx"
	// for a message's first five bytes (rpc_util.go, (*parser).recvMsg).
	{"Recv and Recv", func(r *rig) string {
		client, server := r.from, r.to
		server.Send(text(0))
		client.Recv() // or both would wait for the header first
		ended := make(chan error, 2)
		for range 2 {
			go func() { _, err := client.Recv(); ended <- err }()
		}
		time.Sleep(time.Second)
		server.Send(text(32_000))
		larger := 0
		for range 2 {
			if strings.Contains(fmt.Sprint(<-ended), "ResourceExhausted desc = grpc: received message larger than max") {
				larger++
			}
		}
		return fmt.Sprintf("of 1 message, %d Recvs say ResourceExhausted: larger than max", larger)
	}, "grpc.(*parser).recvMsg()"},
	{"Send and Recv", func(r *rig) string {
		const n = 300 // more than there is room for
		go func() {   // the server sends back what it receives
			for {
				m, err := r.to.Recv()
				if err != nil {
					r.leave <- nil
					return
				}
				r.to.Send(m)
			}
		}()
		go func() {
			for range n {
				r.from.Send(text(1024))
			}
			r.close()
		}()
		for got := 0; ; got++ {
			if _, err := r.from.Recv(); err != nil {
				return fmt.Sprintf("%d of %d messages come back; %v", got, n, err)
			}
		}
	}, ""},
}

// Each misuse runs in a process of its own, because in this one a report of
// the race detector would be a failure, and on one processor, so that the same
// thing happens each time. A row with a report is tried until there is one: an
// order by chance hides the race of two Recvs in about half of the tries.
func TestTheRaceDetectorSeesTwoMisusesOfThree(t *testing.T) {
	const variable, result, row = "MISUSE", "what came of it: ", "%-18s  %-65s  %s\n"
	for _, m := range misuses {
		if os.Getenv(variable) != m.calls {
			continue
		}
		for try := 0; try == 0 || raceDetector && m.race != "" && try < 200; try++ { // the child
			lab.Run(t, func(l *lab.Lab) {
				r := open(l, up)
				defer r.cancel()
				fmt.Println(result + m.do(r))
			}, lab.Lasts(2*time.Hour))
		}
		return
	}
	table := fmt.Sprintf(row, "at the same time", "what comes of it", "go test -race")
	for _, m := range misuses {
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), variable+"="+m.calls, "GOMAXPROCS=1", "GORACE=")
		out, err := child.CombinedOutput() // a race is an error, too
		_, came, _ := strings.Cut(string(out), result)
		came, _, _ = strings.Cut(came, "\n")
		verdict, want := "silent", m.race != "" && raceDetector
		if m.race != "" {
			verdict = "DATA RACE"
		}
		got := strings.Contains(string(out), "WARNING: DATA RACE")
		if got != want || got && !strings.Contains(string(out), m.race) || (err != nil) != want {
			t.Errorf("%s: the race detector reports: %v, want %v, in %q; the process: %v\n%s", m.calls, got, want, m.race, err, out)
		}
		table += fmt.Sprintf(row, m.calls, came, verdict)
	}
	lab.Golden(t, "misuses.txt", table)
	t.Logf("built with -race: %v\n%s", raceDetector, table)
}

// The quota stays positive, so that a Send which comes later passes at once.
// When the stream fills again, one goroutine waits behind the stuck one. The
// next post wakes who has waited longest: now the other is stuck.
func TestAStuckSendIsOvertakenUntilTheNextStall(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		r := open(l, down)
		defer r.cancel()
		stuck := r.stick()
		for range 1000 {
			r.mustSend(1)
			r.mustRecv()
		}
		early := returned(stuck)
		var sent atomic.Int32
		go func() { // the only goroutine that sends from here on
			for r.from.Send(text(1024)) == nil {
				sent.Add(1)
				time.Sleep(time.Millisecond) // slower than the connection's writer
			}
		}()
		time.Sleep(time.Minute)
		before := sent.Load()
		if early+returned(stuck) != 0 || waiting() != 2 {
			l.Errorf("before the peer reads, the stuck Send has returned: %v, and %d wait, want false and 2", early+returned(stuck) != 0, waiting())
		}
		go r.readAll()
		time.Sleep(time.Hour)
		if returned(stuck) != 1 || sent.Load() != before || waiting() != 1 {
			l.Errorf("the stuck Send returned: %v; the other goroutine has sent %d messages before the peer read, and %d an hour later; %d wait, want true, the same, 1",
				returned(stuck) == 1, before, sent.Load(), waiting())
		}
		l.Logf("1000 later Sends overtake the stuck one; the peer stalls once more: it returns, and the goroutine that has sent %d messages since is stuck an hour later", before)
	}, lab.Lasts(2*time.Hour))
}

func TestAStuckSendEndsWithItsStream(t *testing.T) {
	for _, end := range []struct {
		what string
		how  func(*rig)
		want codes.Code
	}{
		{"the client cancels", func(r *rig) { r.cancel() }, codes.Canceled},
		{"the handler returns", func(r *rig) { r.leave <- nil }, codes.Canceled},
		{"the connection is reset", func(r *rig) { r.link.Cut() }, codes.Unavailable},
	} {
		lab.Run(t, func(l *lab.Lab) {
			r := open(l, down)
			defer r.cancel()
			stuck := r.stick()
			time.Sleep(24 * time.Hour)
			early := returned(stuck)
			end.how(r)
			time.Sleep(time.Second)
			if early != 0 || returned(stuck) != 1 {
				l.Fatalf("the stuck Send returned: a day before %s: %v, a second after: %v, want false, true", end.what, early != 0, returned(stuck) == 1)
			}
			err := <-stuck
			if status.Code(err) != end.want {
				l.Errorf("%s: the stuck Send returned %v, want %v", end.what, err, end.want)
			}
			l.Logf("a day later %s: the stuck Send returns %v", end.what, err)
		}, lab.Lasts(48*time.Hour))
	}
}

// What 100 producers send, with a first event for the header, is less than the
// quota, and so Send does not block. This test passes with -race.
func TestBelowTheQuotaNothingIsSeen(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		ev := &feedv1.Event{Body: strings.Repeat("x", 98)}
		many := slices.Repeat([]producer{func(send func(*feedv1.Event) error) error {
			for range 4 {
				if err := send(ev); err != nil {
					return err
				}
			}
			return nil
		}}, 100)
		if all := 400 * (proto.Size(ev) + 5); all != 42_000 {
			l.Errorf("the events take %d B of the quota, want 42000", all)
		}
		client, _ := l.Connect(&server{watch: sendTogether, fill: kib(1), producers: many})
		got, err := receive(l, client)
		if len(got) != 401 || err != io.EOF {
			l.Errorf("the client received %d events and %v, want 401 and io.EOF", len(got), err)
		}
		l.Logf("100 goroutines call Send 4 times each: the client receives %d events, and then %v", len(got), err)
	})
}

// watching opens a stream.
func watching(l *lab.Lab, ctx context.Context, client feedv1.FeedServiceClient) grpc.ServerStreamingClient[feedv1.Event] {
	l.Helper()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		l.Fatal(err)
	}
	return stream
}

// receive opens a stream and reads it to its end.
func receive(l *lab.Lab, client feedv1.FeedServiceClient) (events []*feedv1.Event, err error) {
	l.Helper()
	return rest(watching(l, l.Context(), client))
}

// rest reads what is left of a stream, to its end.
func rest(stream grpc.ServerStreamingClient[feedv1.Event]) (events []*feedv1.Event, err error) {
	for {
		ev, err := stream.Recv()
		if err != nil {
			return events, err
		}
		events = append(events, ev)
	}
}

// A lock is for every call that there is. And nothing takes a Send back: who
// gives up waiting for it leaves it where it is.
func TestASecondSenderIsEasilyMade(t *testing.T) {
	for _, what := range []string{"a Send under a lock, and a heartbeat without it", "a Send that is given up after a second, and the next"} {
		lab.Run(t, func(l *lab.Lab) {
			r := open(l, down)
			r.fill()
			var turn sync.Mutex
			first := begin(func(m *feedv1.ChatMessage) error {
				turn.Lock()
				defer turn.Unlock()
				return r.from.Send(m)
			}, 1)
			if strings.Contains(what, "given up") {
				select {
				case err := <-first:
					l.Fatalf("Send returned %v while nobody read", err)
				case <-time.After(time.Second):
				}
			}
			second := begin(r.from.Send, 1)
			time.Sleep(time.Second)
			r.wantAnHourLater([]call{first, second}, 1)
			l.Logf("%s: an hour later %d of 2 has returned", what, returned(first, second))
		}, lab.Lasts(2*time.Hour))
	}
}

// numbered makes m events that say who made them.
func numbered(who string, m int) producer {
	return func(send func(*feedv1.Event) error) error {
		for i := range m {
			if err := send(&feedv1.Event{Topic: who, Id: fmt.Sprint(i)}); err != nil {
				return err
			}
		}
		return nil
	}
}

// The client reads nothing until somebody waits. A lock that is held while
// Send waits stops virtual time, and so this test is one over TCP.
func TestInTurnOrThroughOneAllArrivesInOrderOverTCP(t *testing.T) {
	for name, way := range map[string]watch{"sendInTurn": sendInTurn, "sendThroughOne": sendThroughOne} {
		lab.OverTCP(t, func(l *lab.Lab) {
			const n, m = 10, 100
			filled, ended := make(chan bool, 2), make(chan error, 2)
			svc := &server{fill: kib(full), watch: func(stream watchServer, producers []producer) error {
				filled <- true
				err := way(stream, producers)
				ended <- err
				return err
			}}
			for p := range n {
				svc.producers = append(svc.producers, numbered(fmt.Sprint("producer ", p), m))
			}
			client, _ := l.Connect(svc)
			ctx, cancel := context.WithCancel(l.Context())
			watching(l, ctx, client)
			<-filled // which waits for quota, too, now and then
			wantWaiting(l, 1)
			cancel() // in the stall
			if err := <-ended; status.Code(err) != codes.Canceled {
				l.Errorf("%s: the client cancelled, and the handler returned %v", name, err)
			}
			stream := watching(l, l.Context(), client)
			<-filled
			wantWaiting(l, 1)
			got, err := rest(stream)
			if len(got) != full+n*m || err != io.EOF {
				l.Fatalf("%s: the client received %d events, then %v, want %d and io.EOF", name, len(got), err, full+n*m)
			}
			next := map[string]int{}
			for _, ev := range got[full:] {
				if who := ev.GetTopic(); ev.GetId() != fmt.Sprint(next[who]) {
					l.Errorf("%s: event %s of %s came when %d was next", name, ev.GetId(), who, next[who])
				}
				next[ev.GetTopic()]++
			}
			l.Logf("%s over TCP: one goroutine waited in Send, and %d events of %d producers arrived, in order for each", name, n*m, len(next))
		})
	}
}

// wantWaiting returns when n goroutines wait for quota. The test's limit ends it.
func wantWaiting(l *lab.Lab, n int) {
	l.Helper()
	for got := -1; got != n; time.Sleep(time.Millisecond) {
		if got = waiting(); got > n || l.Elapsed() > 5*time.Second {
			l.Fatalf("%d goroutines wait for quota, want %d", got, n)
		}
	}
}

// When the client has received the one event that was woken, no more quota
// will ever come back: what waits now waits until the stream ends.
func TestNineOfTenStayInSendOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		ended := make(chan error, 10)
		client, _ := l.Connect(&server{watch: sendTogether, fill: kib(full), producers: slices.Repeat([]producer{
			func(send func(*feedv1.Event) error) error {
				err := sayOne(send)
				ended <- err
				return err
			}}, 10)})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream := watching(l, ctx, client)
		wantWaiting(l, 10)
		for range full + 1 {
			if _, err := stream.Recv(); err != nil {
				l.Fatal(err)
			}
		}
		stuck := waiting()
		cancel()
		ends := map[codes.Code]int{}
		for range 10 {
			ends[status.Code(<-ended)]++
		}
		if stuck != 9 || ends[codes.OK] != 1 || ends[codes.Canceled] != 9 {
			l.Errorf("%d goroutines waited in Send, and the ten ended with %v, want 9, 1 OK and 9 Canceled", stuck, ends)
		}
		l.Logf("over TCP: %d events read, %d of 10 goroutines still wait in Send; the client cancels: %v", full+1, stuck, ends)
	})
}

// A tracer is a stats handler that looks at the messages later, as one with a
// queue does.
type tracer struct{ sent []*feedv1.Event }

func (*tracer) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*tracer) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*tracer) HandleConn(context.Context, stats.ConnStats)                       {}
func (t *tracer) HandleRPC(_ context.Context, s stats.RPCStats) {
	if out, ok := s.(*stats.OutPayload); ok {
		t.sent = append(t.sent, out.Payload.(*feedv1.Event))
	}
}

// Send has encoded the message when it returns (stream.go, prepareMsg), but it
// hands the message itself to the stats handlers.
func TestAReusedMessageArrivesAndItsTraceIsWrong(t *testing.T) {
	bodies := func(events []*feedv1.Event) (all string) {
		for _, ev := range events {
			all += ev.GetBody()
		}
		return all
	}
	for _, tt := range []struct {
		reuse bool
		want  string
	}{{true, "222"}, {false, "012"}} {
		lab.Run(t, func(l *lab.Lab) {
			link, later := l.NewLink(), &tracer{}
			link.Serve(&server{watch: func(stream watchServer, _ []producer) error {
				ev := new(feedv1.Event)
				for i := range 3 {
					if !tt.reuse {
						ev = new(feedv1.Event)
					}
					ev.Body = fmt.Sprint(i)
					if err := stream.Send(ev); err != nil {
						return err
					}
				}
				return nil
			}}, grpc.StatsHandler(later))
			arrived, err := receive(l, feedv1.NewFeedServiceClient(link.Dial()))
			if err != io.EOF || bodies(arrived) != "012" || bodies(later.sent) != tt.want {
				l.Errorf("reused: %v: %q arrived, then %v, and the stats handler has %q, want 012, io.EOF and %s", tt.reuse, bodies(arrived), err, bodies(later.sent), tt.want)
			}
			l.Logf("one message reused: %-5v  the client received %s, a stats handler that looks later sees %s", tt.reuse, bodies(arrived), bodies(later.sent))
		})
	}
}
