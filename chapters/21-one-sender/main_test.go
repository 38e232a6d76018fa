package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
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

// A direction is the way that the events of a test take.
type direction string

const (
	down direction = "server to client"
	up   direction = "client to server"
)

// ends is a feed that hands its end of each stream to the test, which says
// when the handler returns, and with what.
type ends struct {
	feedv1.UnimplementedFeedServiceServer
	watch  chan watchServer
	upload chan grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]
	leave  chan error
}

func (e *ends) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	e.watch <- stream
	return e.stay(stream.Context())
}

func (e *ends) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	e.upload <- stream
	return e.stay(stream.Context())
}

func (e *ends) stay(ctx context.Context) error {
	select {
	case err := <-e.leave:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A rig is one stream: the end that sends, and the end that receives.
type rig struct {
	*lab.Lab
	link   *lab.Link
	send   func(*feedv1.Event) error
	recv   func() (*feedv1.Event, error)
	close  func() error // CloseSend
	result func() error // receives the answer to an upload
	leave  chan<- error // ends the handler
	cancel context.CancelFunc
	read   atomic.Int64 // events that readAll has received
}

// open opens a stream whose windows are static.
func open(l *lab.Lab, dir direction, dial ...grpc.DialOption) *rig {
	l.Helper()
	ctx, cancel := context.WithCancel(l.Context())
	leave := make(chan error)
	svc := &ends{
		watch:  make(chan watchServer, 1),
		upload: make(chan grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult], 1),
		leave:  leave,
	}
	r := &rig{Lab: l, link: l.NewLink(), leave: leave, cancel: cancel}
	r.link.Serve(svc)
	client := feedv1.NewFeedServiceClient(r.link.Dial(dial...))
	if dir == down {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
		if err != nil {
			l.Fatal(err)
		}
		r.send, r.recv = (<-svc.watch).Send, stream.Recv
		return r
	}
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		l.Fatal(err)
	}
	r.send, r.recv, r.close = stream.Send, (<-svc.upload).Recv, stream.CloseSend
	r.result = func() error { return stream.RecvMsg(new(feedv1.UploadResult)) }
	return r
}

// fill sends what the peer has room for: from here on Send blocks.
func (r *rig) fill() {
	r.Helper()
	for i, ev := range kib(full) {
		if err := r.send(ev); err != nil {
			r.Fatalf("Send %d: %v", i+1, err)
		}
	}
}

// readAll receives until the stream ends.
func (r *rig) readAll() {
	for {
		if _, err := r.recv(); err != nil {
			return
		}
		r.read.Add(1)
	}
}

// A call is a Send on a goroutine of its own.
type call struct {
	done chan struct{}
	err  error // once done is closed
}

func begin(send func(*feedv1.Event) error, body string) *call {
	c := &call{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = send(&feedv1.Event{Body: body})
	}()
	return c
}

func (c *call) returned() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// returned counts the calls that have returned.
func returned(calls []*call) (n int) {
	for _, c := range calls {
		if c.returned() {
			n++
		}
	}
	return n
}

// waiting counts the goroutines that wait for write quota.
func waiting() int {
	return strings.Count(goroutines(), "transport.(*writeQuota).get(")
}

// wantAnHourLater lets the peer read everything, and counts the Sends that have
// returned an hour later. The others wait for quota.
func (r *rig) wantAnHourLater(calls []*call, want int) {
	r.Helper()
	go r.readAll()
	time.Sleep(time.Hour)
	if got, stuck := returned(calls), waiting(); got != want || stuck != len(calls)-want {
		r.Errorf("%d of %d blocked Sends have returned, and %d wait for quota, want %d and %d", got, len(calls), stuck, want, len(calls)-want)
	}
	if got := r.read.Load(); got != int64(full+want) {
		r.Errorf("the peer has received %d events, want %d", got, full+want)
	}
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
	for _, dir := range []direction{down, up} {
		for _, tt := range []struct{ n, body, want int }{
			{1, 1, 1}, {2, 1, 1}, {3, 1, 1}, {10, 1, 1}, {100, 1, 1}, {2, 64 << 10, 2}, {10, 64 << 10, 10},
		} {
			lab.Run(t, func(l *lab.Lab) {
				r := open(l, dir)
				r.fill()
				var calls []*call
				for range tt.n {
					calls = append(calls, begin(r.send, strings.Repeat("!", tt.body)))
				}
				time.Sleep(time.Second)
				if got := returned(calls); got != 0 {
					l.Fatalf("%s: %d of %d Sends returned while nobody read", dir, got, tt.n)
				}
				defer r.cancel()
				r.wantAnHourLater(calls, tt.want)
				l.Logf("%s, body of %5d B: the peer has read all, and an hour later %3d of %3d Sends have returned", dir, tt.body, returned(calls), tt.n)
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
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
		if err != nil {
			l.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		link.Mark()
		link.Note(lab.Server, "%d goroutines wait in Send", waiting())
		time.Sleep(time.Second)
		link.Note(lab.Client, "Recv, until nothing is left")
		go func() {
			for err == nil {
				_, err = stream.Recv()
			}
		}()
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

// stack returns the goroutines that have function on their stack: what they
// are called in grpc-go and in the chapter.
func stack(function string) string {
	var out strings.Builder
	for _, g := range strings.Split(goroutines(), "\n\n") {
		if !strings.Contains(g, function) {
			continue
		}
		lines := strings.Split(lab.Brief(g), "\n")
		fmt.Fprintln(&out, lines[0])
		for i, line := range lines[1:] {
			if strings.Contains(line, "writeQuota") || strings.Contains(line, "SendMsg") || strings.HasPrefix(line, "main.send") {
				fmt.Fprintf(&out, "%s  %s\n", line, strings.TrimSpace(lines[i+2]))
			}
		}
	}
	return out.String()
}

func goroutines() string {
	buf := make([]byte, 8<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// A misuse is two calls at once, on one stream.
type misuse struct {
	calls   string
	do      func(*lab.Lab) string // returns what came of it
	reports bool                  // the race detector
}

var misuses = []misuse{
	{"Send and Send", func(l *lab.Lab) string {
		r := open(l, down)
		r.fill()
		calls := []*call{begin(r.send, "!"), begin(r.send, "!")}
		time.Sleep(time.Second)
		go r.readAll()
		time.Sleep(time.Hour)
		defer r.cancel()
		return fmt.Sprintf("an hour later %d of 2 tiny ones has returned", returned(calls))
	}, false},
	// CloseSend asks for no quota: END_STREAM overtakes the event, which then
	// comes on a stream that is closed (http2_server.go, handleData).
	{"Send and CloseSend", func(l *lab.Lab) string {
		r := open(l, up)
		r.fill()
		c := begin(r.send, "!")
		time.Sleep(time.Second)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			r.close()
		}()
		<-closed
		go r.readAll()
		time.Sleep(time.Hour)
		defer r.cancel()
		if n := r.read.Load(); n > full || n < 112 {
			return fmt.Sprintf("the server has received %d events", n)
		}
		err := r.result() // the RPC's end
		if !strings.Contains(fmt.Sprint(err), "STREAM_CLOSED") {
			return fmt.Sprint(err)
		}
		return fmt.Sprintf("Send returns %v, its event is lost; %v: STREAM_CLOSED", c.err, status.Code(err))
	}, true},
	// The second frame of the event goes to the other Recv, which takes "xxxxx"
	// for a message's first five bytes (rpc_util.go, (*parser).recvMsg).
	{"Recv and Recv", func(l *lab.Lab) string {
		r := open(l, down)
		r.send(&feedv1.Event{})
		r.recv() // or both would wait for the header first
		var whole, failed atomic.Int32
		for range 2 {
			go func() {
				switch _, err := r.recv(); status.Code(err) {
				case codes.OK:
					whole.Add(1)
				case codes.ResourceExhausted:
					failed.Add(1)
				}
			}()
		}
		time.Sleep(time.Second)
		r.send(&feedv1.Event{Body: strings.Repeat("x", 32_000)})
		time.Sleep(time.Second)
		defer r.cancel()
		if failed.Load() == 0 {
			return "no ResourceExhausted"
		}
		return fmt.Sprintf("%d of 1 event arrives; ResourceExhausted: larger than max", whole.Load())
	}, true},
	{"Send and Recv", func(l *lab.Lab) string {
		const n = 1000
		link := l.NewLink()
		link.Serve(echo{})
		stream, err := feedv1.NewFeedServiceClient(link.Dial()).Chat(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		go func() {
			for range n {
				stream.Send(&feedv1.ChatMessage{Text: strings.Repeat("x", 1024)})
			}
			stream.CloseSend()
		}()
		got := 0
		for {
			if _, err := stream.Recv(); err != nil {
				return fmt.Sprintf("%d of %d messages come back; %v", got, n, err)
			}
			got++
		}
	}, false},
}

// echo is a feed whose Chat sends each line back.
type echo struct {
	feedv1.UnimplementedFeedServiceServer
}

func (echo) Chat(stream grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]) error {
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
}

// Each misuse runs in a process of its own: in this one the race detector's
// report would be a failure. Built with -race, the test wants to see it, or
// not to see it.
func TestTheRaceDetectorSeesTwoMisusesOfThree(t *testing.T) {
	const variable, result = "MISUSE", "what came of it: "
	for _, m := range misuses {
		if os.Getenv(variable) == m.calls { // the child
			tries := 1
			if raceDetector && m.reports { // an order by chance hides a race
				tries = 30
			}
			for range tries {
				lab.Run(t, func(l *lab.Lab) { fmt.Println(result + m.do(l)) }, lab.Lasts(2*time.Hour))
			}
			return
		}
	}
	table := fmt.Sprintf("%-18s  %-63s  %s\n", "at the same time", "what comes of it", "go test -race")
	for _, m := range misuses {
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), variable+"="+m.calls)
		out, _ := child.CombinedOutput() // a race is an error, too
		_, text, _ := strings.Cut(string(out), result)
		text, _, _ = strings.Cut(text, "\n")
		if got := strings.Contains(string(out), "WARNING: DATA RACE"); got != (m.reports && raceDetector) {
			t.Errorf("%s: the race detector reports: %v, want %v\n%s", m.calls, got, m.reports, out)
		}
		race := "silent"
		if m.reports {
			race = "DATA RACE"
		}
		table += fmt.Sprintf("%-18s  %-63s  %s\n", m.calls, text, race)
	}
	lab.Golden(t, "misuses.txt", table)
	t.Logf("built with -race: %v\n%s", raceDetector, table)
}

// The quota stays positive, so that a Send which comes later passes at once.
func TestAStuckSendIsOvertaken(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		r := open(l, down)
		stuck := r.stick()
		for i := range 1000 {
			if err := r.send(&feedv1.Event{Body: "later"}); err != nil {
				l.Fatal(err)
			}
			if _, err := r.recv(); err != nil {
				l.Fatal(err)
			}
			if stuck.returned() {
				l.Fatalf("the stuck Send returned after %d later ones", i)
			}
		}
		l.Log("one goroutine is stuck in Send, and 1000 later Sends on its stream have returned and arrived")
		r.cancel()
	})
}

// When the stream fills again, one goroutine waits behind the stuck one. The
// next post wakes who has waited longest: now the other is stuck.
func TestTheNextStallFreesItAndSticksAnother(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		r := open(l, down)
		stuck := r.stick()
		var sent atomic.Int32
		go func() { // the only goroutine that sends from here on
			for _, ev := range kib(200) {
				if r.send(ev) != nil {
					return
				}
				sent.Add(1)
			}
		}()
		time.Sleep(time.Minute)
		before := sent.Load()
		go r.readAll()
		time.Sleep(time.Hour)
		if !stuck.returned() || sent.Load() != before || before >= 200 || waiting() != 1 {
			l.Errorf("the stuck Send returned: %v; the other goroutine has sent %d events before the peer read, and %d an hour later; %d wait, want true, the same, 1",
				stuck.returned(), before, sent.Load(), waiting())
		}
		l.Logf("the peer stalls once more: the stuck Send returns, and the goroutine that sent %d events since is stuck an hour later", sent.Load())
		r.cancel()
	}, lab.Lasts(2*time.Hour))
}

// stick lets two Sends block, reads everything, and returns the one of them
// that does not return.
func (r *rig) stick() *call {
	r.Helper()
	r.fill()
	calls := []*call{begin(r.send, "!"), begin(r.send, "!")}
	time.Sleep(time.Second)
	for range full + 1 {
		if _, err := r.recv(); err != nil {
			r.Fatal(err)
		}
	}
	time.Sleep(time.Second)
	if returned(calls) != 1 || waiting() != 1 {
		r.Fatalf("%d of 2 Sends have returned, and %d wait, want 1 and 1", returned(calls), waiting())
	}
	if calls[0].returned() {
		return calls[1]
	}
	return calls[0]
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
			if stuck.returned() {
				l.Fatalf("the stuck Send returned %v", stuck.err)
			}
			end.how(r)
			time.Sleep(time.Second)
			if !stuck.returned() || status.Code(stuck.err) != end.want {
				l.Fatalf("%s: the stuck Send returned: %v, %v, want %v", end.what, stuck.returned(), stuck.err, end.want)
			}
			l.Logf("a day later %s: the stuck Send returns %v", end.what, stuck.err)
		}, lab.Lasts(48*time.Hour))
	}
}

// What 100 producers send, with a first event for the header, is less than the
// quota, and so Send does not block. This test passes with -race.
func TestBelowTheQuotaNothingIsSeen(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		first, ev := kib(1), &feedv1.Event{Body: strings.Repeat("x", 98)}
		var many []producer
		for range 100 {
			many = append(many, func(send func(*feedv1.Event) error) error {
				for range 4 {
					if err := send(ev); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if all := 400 * (proto.Size(ev) + 5); all != 42_000 {
			l.Errorf("the events take %d B of the quota, want 42000", all)
		}
		client, _ := l.Connect(&server{watch: sendTogether, fill: first, producers: many})
		got, err := receive(l, client, nil)
		if got != 401 || err != io.EOF {
			l.Errorf("the client received %d events and %v, want 401 and io.EOF", got, err)
		}
		l.Logf("100 goroutines call Send 4 times each: the client receives %d events, and then %v", got, err)
	})
}

// receive reads a stream to its end, and hands each event to see.
func receive(l *lab.Lab, client feedv1.FeedServiceClient, see func(*feedv1.Event)) (int, error) {
	l.Helper()
	stream, err := client.Watch(l.Context(), &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		l.Fatal(err)
	}
	for n := 0; ; n++ {
		ev, err := stream.Recv()
		if err != nil {
			return n, err
		}
		if see != nil {
			see(ev)
		}
	}
}

// A lock is for every call that there is. And nothing takes a Send back: who
// gives up waiting for it leaves it where it is.
func TestASecondSenderIsEasilyMade(t *testing.T) {
	for _, tt := range []struct {
		what   string
		second func(*rig) []*call
	}{
		{"a Send under a lock, and a heartbeat without it", func(r *rig) []*call {
			var turn sync.Mutex
			locked := func(ev *feedv1.Event) error {
				turn.Lock()
				defer turn.Unlock()
				return r.send(ev)
			}
			return []*call{begin(locked, "event"), begin(r.send, "heartbeat")}
		}},
		{"a Send that is given up after a second, and the next", func(r *rig) (calls []*call) {
			for range 2 {
				c := begin(r.send, "!")
				select {
				case <-c.done:
				case <-time.After(time.Second):
				}
				calls = append(calls, c)
			}
			return calls
		}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			r := open(l, down)
			r.fill()
			calls := tt.second(r)
			time.Sleep(time.Second)
			defer r.cancel()
			r.wantAnHourLater(calls, 1)
			l.Logf("%s: an hour later %d of 2 has returned", tt.what, returned(calls))
		}, lab.Lasts(2*time.Hour))
	}
}

// numbered are n producers of m events each, which say who made them.
func numbered(n, m int) (all []producer) {
	for p := range n {
		all = append(all, func(send func(*feedv1.Event) error) error {
			for i := range m {
				if err := send(&feedv1.Event{Topic: fmt.Sprint(p), Id: fmt.Sprint(i)}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return all
}

// The client reads nothing until all producers wait. A lock that is held while
// Send waits stops virtual time, and so this test is one over TCP.
func TestInTurnOrThroughOneAllArrivesInOrderOverTCP(t *testing.T) {
	for _, way := range []struct {
		name  string
		watch watch
	}{{"sendInTurn", sendInTurn}, {"sendThroughOne", sendThroughOne}} {
		lab.OverTCP(t, func(l *lab.Lab) {
			const n, m = 10, 100
			link := l.NewLink()
			link.Serve(&server{watch: way.watch, fill: kib(full), producers: numbered(n, m)})
			client := feedv1.NewFeedServiceClient(link.Dial())
			stream, err := client.Watch(l.Context(), &feedv1.WatchRequest{Topic: "alerts"})
			if err != nil {
				l.Fatal(err)
			}
			if !comes(func() bool { return waiting() == 1 }) {
				l.Fatalf("%s: %d goroutines wait for quota, want 1", way.name, waiting())
			}
			next, got := map[string]int{}, 0
			for {
				ev, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					l.Fatal(err)
				}
				if got++; got > full {
					if ev.GetId() != fmt.Sprint(next[ev.GetTopic()]) {
						l.Errorf("%s: event %s of producer %s came when %d was next", way.name, ev.GetId(), ev.GetTopic(), next[ev.GetTopic()])
					}
					next[ev.GetTopic()]++
				}
			}
			if got != full+n*m {
				l.Errorf("%s: the client received %d events, want %d", way.name, got, full+n*m)
			}
			l.Logf("%s over TCP: one goroutine waited in Send, and %d of %d events of %d producers arrived, in order for each", way.name, got-full, n*m, n)
		})
	}
}

// comes waits until what is so, for 5 s at most.
func comes(what func() bool) bool {
	for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(time.Millisecond) {
		if what() {
			return true
		}
	}
	return false
}

// When the client has received the one event that was woken, no more quota
// will ever come back: what waits now waits until the stream ends.
func TestNineOfTenStayInSendOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		var ok, failed atomic.Int32
		var ten []producer
		for range 10 {
			ten = append(ten, func(send func(*feedv1.Event) error) error {
				err := sayOne(send)
				switch {
				case err == nil:
					ok.Add(1)
				case status.Code(err) == codes.Canceled:
					failed.Add(1)
				}
				return err
			})
		}
		link := l.NewLink()
		link.Serve(&server{watch: sendTogether, fill: kib(full), producers: ten})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream, err := feedv1.NewFeedServiceClient(link.Dial()).Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
		if err != nil {
			l.Fatal(err)
		}
		if !comes(func() bool { return waiting() == 10 }) {
			l.Fatalf("%d of 10 goroutines wait for quota", waiting())
		}
		for range full + 1 {
			if _, err := stream.Recv(); err != nil {
				l.Fatal(err)
			}
		}
		time.Sleep(50 * time.Millisecond) // would be enough for all
		stuck := waiting()
		cancel()
		if !comes(func() bool { return ok.Load()+failed.Load() == 10 }) || stuck != 9 || ok.Load() != 1 {
			l.Errorf("%d goroutines waited; %d Sends returned nil and %d Canceled, want 9, 1 and 9", stuck, ok.Load(), failed.Load())
		}
		l.Logf("over TCP: 129 events read, %d of 10 goroutines still wait in Send; the client cancels: %d returned nil, %d Canceled", stuck, ok.Load(), failed.Load())
	})
}

// retainer is a stats handler that looks at the messages later, as a tracer
// with a queue does.
type retainer struct {
	mu   sync.Mutex
	sent []*feedv1.Event
}

func (r *retainer) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (r *retainer) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (r *retainer) HandleConn(context.Context, stats.ConnStats)                       {}
func (r *retainer) HandleRPC(_ context.Context, s stats.RPCStats) {
	if out, ok := s.(*stats.OutPayload); ok {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sent = append(r.sent, out.Payload.(*feedv1.Event))
	}
}

// Send has encoded the message when it returns (stream.go, prepareMsg), but it
// hands the message itself to the stats handlers.
func TestAReusedMessageArrivesAndItsTraceIsWrong(t *testing.T) {
	for _, reuse := range []bool{true, false} {
		lab.Run(t, func(l *lab.Lab) {
			tracer := &retainer{}
			link := l.NewLink()
			link.Serve(&server{watch: func(stream watchServer, _ []producer) error {
				ev := new(feedv1.Event)
				for _, body := range []string{"0", "1", "2"} {
					if !reuse {
						ev = new(feedv1.Event)
					}
					ev.Body = body
					if err := stream.Send(ev); err != nil {
						return err
					}
				}
				return nil
			}}, grpc.StatsHandler(tracer))
			arrived, traced, want := "", "", "012"
			if _, err := receive(l, feedv1.NewFeedServiceClient(link.Dial()), func(ev *feedv1.Event) { arrived += ev.GetBody() }); err != io.EOF {
				l.Fatal(err)
			}
			for _, ev := range tracer.sent {
				traced += ev.GetBody()
			}
			if reuse {
				want = "222"
			}
			if arrived != "012" || traced != want {
				l.Errorf("reused: %v: %q arrived, and the stats handler has %q, want 012 and %s", reuse, arrived, traced, want)
			}
			l.Logf("one message reused: %-5v  the client received %s, a stats handler that looks later sees %s", reuse, arrived, traced)
		})
	}
}
