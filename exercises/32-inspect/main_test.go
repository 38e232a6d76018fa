package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// soon is what gRPC needs to end a stream on both sides.
const soon = 100 * time.Millisecond

// A place is a server whose handlers stay until they are told what to return,
// with your liveStreams on both sides.
type place struct {
	*lab.Lab
	feedv1.UnimplementedFeedServiceServer
	link           *lab.Link
	srv            *grpc.Server
	conn           *grpc.ClientConn
	server, client *liveStreams
	end            chan error // what one handler returns
	deaf           bool       // handlers do not listen to their contexts

	mu         sync.Mutex
	calls      []*call
	downstream func(ctx context.Context) // what the next handler does first
}

// at is a test with a place.
func at(t *testing.T, body func(*place), options ...grpc.ServerOption) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		p := &place{Lab: l, link: l.NewLink(), server: newLiveStreams(), client: newLiveStreams(), end: make(chan error, 100)}
		p.srv = p.link.Serve(p, append(options, grpc.StatsHandler(p.server))...)
		p.conn = p.link.Dial(grpc.WithStatsHandler(p.client))
		body(p)
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.calls {
			c.cancel()
		}
		for len(p.end) < cap(p.end) {
			p.end <- nil
		}
	}, lab.Lasts(100*time.Hour))
}

// stay is every handler.
func (p *place) stay(ctx context.Context) error {
	p.mu.Lock()
	f := p.downstream
	p.downstream = nil
	p.mu.Unlock()
	if f != nil {
		f(ctx)
	}
	done := ctx.Done()
	if p.deaf {
		done = nil
	}
	select {
	case err := <-p.end:
		return err
	case <-done:
		return ctx.Err()
	}
}

func (p *place) stream(stream grpc.ServerStream) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	return p.stay(stream.Context())
}

func (p *place) Publish(ctx context.Context, _ *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	return &feedv1.PublishResponse{}, p.stay(ctx)
}
func (p *place) Watch(_ *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	return p.stream(stream)
}
func (p *place) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	if err := p.stream(stream); err != nil {
		return err
	}
	return stream.SendAndClose(&feedv1.UploadResult{})
}

// Chat also answers what it receives.
func (p *place) Chat(stream grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]) error {
	go func() { // ends with the stream
		for {
			msg, err := stream.Recv()
			if err != nil || stream.Send(msg) != nil {
				return
			}
		}
	}()
	return p.stream(stream)
}

// A call is one RPC of the client.
type call struct {
	method string
	began  time.Time
	cancel context.CancelFunc
	grpc.ClientStream
	done chan struct{}
	err  error // after done
}

func name(method string) string { return "/feed.v1.FeedService/" + method }

// shapes are the methods with streams.
func shapes() []string { return []string{"Watch", "UploadEvents", "Chat"} }

// call opens an RPC on the connection and receives until it ends.
func (p *place) call(ctx context.Context, conn *grpc.ClientConn, method string) *call {
	p.Helper()
	c := &call{method: method, began: time.Now(), done: make(chan struct{})}
	ctx, c.cancel = context.WithCancel(ctx)
	p.mu.Lock()
	p.calls = append(p.calls, c)
	p.mu.Unlock()
	desc := &grpc.StreamDesc{ServerStreams: method == "Watch" || method == "Chat", ClientStreams: method == "UploadEvents" || method == "Chat"}
	if c.ClientStream, c.err = conn.NewStream(ctx, desc, name(method)); c.err != nil {
		p.Fatalf("%s could not be opened: %v", method, c.err)
	}
	if !desc.ClientStreams {
		c.SendMsg(&feedv1.WatchRequest{})
		c.CloseSend()
	}
	go func() {
		defer close(c.done)
		for c.err == nil {
			if c.err = c.RecvMsg(&feedv1.ChatMessage{}); c.err == nil && !desc.ServerStreams {
				c.err = io.EOF
			}
		}
	}()
	return c
}

// open opens a stream, and waits until its handler runs.
func (p *place) open(method string) *call {
	p.Helper()
	c := p.call(p.Context(), p.conn, method)
	time.Sleep(2 * soon)
	return c
}

// text says what streams are, the oldest first.
func text(all []Stream) string {
	if len(all) == 0 {
		return "none"
	}
	var words []string
	for _, s := range all {
		words = append(words, fmt.Sprintf("%s %v", strings.TrimPrefix(s.Method, name("")), s.Age.Round(time.Millisecond)))
	}
	return fmt.Sprintf("%d (%s)", len(all), strings.Join(words, ", "))
}

// snapshot calls Snapshot.
func (p *place) snapshot(live *liveStreams) (all []Stream) {
	p.Helper()
	p.Call("Snapshot", time.Second, func() { all = live.Snapshot() })
	return all
}

// sees wants a Snapshot of one side to have these streams. A handler begins a
// way after its call.
func (p *place) sees(what, side string, live *liveStreams, calls ...*call) {
	p.Helper()
	way := map[string]time.Duration{"server": lab.Latency}[side]
	var want []Stream
	for _, c := range calls {
		want = append(want, Stream{name(c.method), time.Since(c.began) - way})
	}
	byAge := func(a, b Stream) int { return cmp.Compare(b.Age, a.Age) }
	inOrder := func(a, b Stream) int { return cmp.Or(byAge(a, b), strings.Compare(a.Method, b.Method)) }
	got := p.snapshot(live)
	for _, s := range got {
		if !strings.HasPrefix(s.Method, name("")) {
			p.Fatalf("%s: on the %s Snapshot returned the method %q, want such as %q", what, side, s.Method, name("Watch"))
		}
	}
	sorted := slices.SortedFunc(slices.Values(got), inOrder)
	slices.SortFunc(want, inOrder)
	same := func(a, b Stream) bool { return a.Method == b.Method && (a.Age-b.Age).Abs() <= time.Millisecond }
	switch {
	case !slices.EqualFunc(sorted, want, same):
		p.Fatalf("%s: on the %s Snapshot returned %s, want %s", what, side, text(got), text(want))
	case !slices.IsSortedFunc(got, byAge):
		p.Fatalf("%s: on the %s Snapshot returned %s, want the oldest first", what, side, text(got))
	}
}

// see wants both sides to have these streams.
func (p *place) see(what string, calls ...*call) {
	p.Helper()
	p.sees(what, "server", p.server, calls...)
	p.sees(what, "client", p.client, calls...)
}

func TestATagComesFromTheContextItGets(t *testing.T) {
	live := newLiveStreams()
	type mark struct{}
	given, cancel := context.WithCancel(context.WithValue(context.Background(), mark{}, 1))
	rpc, conn := live.TagRPC(given, tagged("Watch")), live.TagConn(given, connection())
	cancel()
	for i, got := range []context.Context{rpc, conn} {
		if got.Value(mark{}) != 1 || got.Err() == nil {
			t.Fatalf("the context that %s returned does not come from the one it got: it lacks its values or its end", []string{"TagRPC", "TagConn"}[i])
		}
	}
}

func TestAStreamIsLiveUntilItEnds(t *testing.T) {
	for _, method := range shapes() {
		at(t, func(p *place) {
			p.see("nothing was called")
			for range 2 {
				c := p.open(method)
				p.see(method+" was opened", c)
				time.Sleep(time.Hour)
				p.see(method+" has been open for an hour", c)
				p.end <- nil
				time.Sleep(soon)
				p.see("the handler of " + method + " returned nil")
			}
		})
	}
}

func TestAUnaryCallIsNoStream(t *testing.T) {
	for _, call := range [][2]string{{"Publish", "a unary call"}, {"Gone", "a call of a method that the server does not have"}} {
		at(t, func(p *place) {
			method, what := call[0], call[1]
			unary := p.open(method)
			p.see(what + " was made")
			unary.cancel()
			time.Sleep(soon)
			p.see(what + " has ended")
			watch := p.open("Watch")
			unary = p.open(method)
			p.see("a Watch is open, and "+what+" was made", watch)
			unary.cancel()
			time.Sleep(soon)
			p.see("a Watch is open, and "+what+" has ended", watch)
			watch.cancel()
			time.Sleep(soon)
			p.see("a Watch has ended, and before it " + what)
		})
	}
}

func TestEachEndingEndsAStream(t *testing.T) {
	for _, end := range []struct {
		what   string
		server codes.Code // what the client gets
		do     func(p *place, c *call)
	}{
		{"the server returned", codes.OK, func(p *place, _ *call) { p.end <- nil }},
		{"the server failed", codes.Internal, func(p *place, _ *call) { p.end <- status.Error(codes.Internal, "no disk") }},
		{"the client cancelled", codes.Canceled, func(_ *place, c *call) { c.cancel() }},
		{"the client's deadline passed", codes.DeadlineExceeded, func(*place, *call) { time.Sleep(time.Hour) }},
		{"the network was cut", codes.Unavailable, func(p *place, _ *call) { p.link.Cut() }},
		{"the client closed its connection", codes.Canceled, func(p *place, _ *call) { p.conn.Close() }},
		{"the server was stopped", codes.Unavailable, func(p *place, _ *call) { p.srv.Stop() }},
	} {
		for _, method := range shapes() {
			at(t, func(p *place) {
				ctx := p.Context()
				if strings.Contains(end.what, "deadline") {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, time.Hour)
					defer cancel()
				}
				c := p.call(ctx, p.conn, method)
				time.Sleep(time.Minute)
				p.see(method+" was opened", c)
				end.do(p, c)
				time.Sleep(soon)
				p.see(fmt.Sprintf("%s was opened, and %s %v ago", method, end.what, soon))
				<-c.done
				if got := status.Code(c.err); !(errors.Is(c.err, io.EOF) && end.server == codes.OK) && got != end.server {
					p.Fatalf("%s was opened, %s, and the client received %v: does your code touch the RPC?", method, end.what, c.err)
				}
			})
		}
	}
}

func TestADeafHandlerIsLiveUntilItReturns(t *testing.T) {
	for _, gone := range []struct {
		what string
		do   func(p *place, c *call)
	}{
		{"its client cancelled", func(_ *place, c *call) { c.cancel() }},
		{"its connection was cut", func(p *place, _ *call) { p.link.Cut() }},
		{"its client closed the connection", func(p *place, _ *call) { p.conn.Close() }},
	} {
		at(t, func(p *place) {
			p.deaf = true
			c := p.open("Chat")
			gone.do(p, c)
			time.Sleep(20 * time.Minute)
			what := "a handler does not listen to its context, " + gone.what + " 20m ago"
			p.sees(what, "client", p.client)
			p.sees(what, "server", p.server, c)
			p.end <- nil
			time.Sleep(soon)
			p.see(what + ", and it returned")
		})
	}
}

// The events of an RPC in their order: see stats.go in package stats.
func TestAStreamIsLiveFromBeginToEnd(t *testing.T) {
	for _, rpc := range []struct {
		what, side string
		events     []stats.RPCStats
	}{
		{"a stream", "server", []stats.RPCStats{inHeader("Chat"), &stats.Begin{IsClientStream: true, IsServerStream: true}, &stats.InPayload{},
			&stats.OutHeader{}, &stats.OutPayload{}, &stats.OutTrailer{}, &stats.End{}}},
		{"a stream", "client", []stats.RPCStats{&stats.Begin{Client: true, IsClientStream: true, IsServerStream: true}, &stats.DelayedPickComplete{},
			outHeader("Chat"), &stats.OutPayload{Client: true}, &stats.InHeader{Client: true}, &stats.InPayload{Client: true},
			&stats.InTrailer{Client: true}, &stats.End{Client: true}}},
		{"the transparent retry of a stream", "client", []stats.RPCStats{
			&stats.Begin{Client: true, IsClientStream: true, IsServerStream: true, IsTransparentRetryAttempt: true}, &stats.End{Client: true}}},
	} {
		at(t, func(p *place) {
			live := newLiveStreams()
			ctx := live.TagRPC(p.Context(), tagged("Chat"))
			p.sees("an RPC was tagged", rpc.side, live)
			c := &call{method: "Chat"}
			var open []*call
			var began time.Time
			for _, event := range rpc.events {
				switch event := event.(type) {
				case *stats.Begin:
					began, open = time.Now(), []*call{c}
					event.BeginTime, c.began = began, began
					if rpc.side == "server" {
						c.began = began.Add(-lab.Latency) // as sees counts
					}
				case *stats.End:
					event.BeginTime, event.EndTime, open = began, time.Now(), nil
				}
				live.HandleRPC(ctx, event)
				what := fmt.Sprintf("HandleRPC has had the %s of %s", strings.TrimPrefix(fmt.Sprintf("%T", event), "*"), rpc.what)
				p.sees(what+", and at this instant Snapshot was called before it and after it", rpc.side, live, open...)
				if !began.IsZero() { // the tag and Begin are of one instant
					time.Sleep(time.Second)
					p.sees(what+" 1s ago", rpc.side, live, open...)
				}
			}
		})
	}
}

func TestEachStreamHasItsOwnAge(t *testing.T) {
	for _, first := range []int{0, 1, 2} {
		at(t, func(p *place) {
			time.Sleep(20 * time.Minute) // the connection is older
			var all []*call
			for range 3 {
				all = append(all, p.open("Chat"))
				time.Sleep(time.Minute)
			}
			p.see("3 Chats were opened, a minute apart", all...)
			for _, c := range all {
				c.SendMsg(&feedv1.ChatMessage{Text: "hello"})
			}
			time.Sleep(soon)
			p.see("3 Chats were opened, a minute apart, and a message went to and fro on each", all...)
			all[first].cancel()
			time.Sleep(time.Minute)
			p.see(fmt.Sprintf("3 Chats were opened, a minute apart, and number %d was cancelled", first+1), slices.Delete(all, first, first+1)...)
		})
	}
}

func TestTheOldestComesFirst(t *testing.T) {
	at(t, func(p *place) {
		var all []*call
		for i := range 12 {
			all = append(all, p.open(shapes()[i%3]))
		}
		p.see("12 streams were opened", all...)
		for i := range 3 { // a new one takes no old one's place
			all[2*i+1].cancel()
			all = append(slices.Delete(all, 2*i+1, 2*i+2), p.open("Chat"))
		}
		p.see("12 streams were opened, and of these 3 ended and 3 more were opened", all...)
	})
}

func TestStreamsOfOneInstantAreSeveral(t *testing.T) {
	at(t, func(p *place) {
		var all []*call
		for i := range 6 {
			all = append(all, p.call(p.Context(), p.conn, shapes()[i/2]))
		}
		time.Sleep(soon)
		p.see("6 streams were opened at one instant, 2 of each method", all...)
		for len(all) > 0 {
			n := len(all) / 2
			all[n].cancel()
			all = slices.Delete(all, n, n+1)
			time.Sleep(soon)
			p.see(fmt.Sprintf("6 streams were opened at one instant, 2 of each method, and %d have ended", 6-len(all)), all...)
		}
	})
}

func TestASnapshotBelongsToItsCaller(t *testing.T) {
	at(t, func(p *place) {
		all := []*call{p.open("Watch"), p.open("Chat"), p.open("Chat")}
		for _, live := range []*liveStreams{p.server, p.client} {
			mine := p.snapshot(live)
			for i := range mine {
				mine[i] = Stream{Method: name("Mine")}
			}
			_ = append(mine[:0], Stream{}, Stream{}, Stream{}, Stream{})
		}
		p.see("the caller of Snapshot changed what it had returned", all...)
		before := p.snapshot(p.server)
		kept := text(before)
		all[0].cancel()
		time.Sleep(time.Minute)
		p.see("a Watch and 2 Chats were opened, and the Watch was cancelled", all[1:]...)
		if text(before) != kept {
			p.Fatalf("an earlier Snapshot was %s, and became %s when a stream ended, want it to stay as it was", kept, text(before))
		}
	})
}

func TestTheEndOfAConnectionLeavesTheOthers(t *testing.T) {
	at(t, func(p *place) {
		all := []*call{p.open("Watch"), p.open("Chat")}
		other := p.link.Dial(grpc.WithStatsHandler(p.client))
		gone := p.call(p.Context(), other, "Chat")
		time.Sleep(time.Second)
		p.see("3 streams were opened on 2 connections", append(slices.Clone(all), gone)...)
		other.Close()
		time.Sleep(time.Second)
		p.see("3 streams were opened on 2 connections, and that of the third was closed", all...)
	})
}

func TestTwoLiveStreamsDoNotShare(t *testing.T) {
	second := newLiveStreams()
	at(t, func(p *place) {
		third := newLiveStreams()
		p.sees("another liveStreams was made", "server", third)
		link := p.NewLink()
		link.Serve(p, grpc.StatsHandler(second))
		three := p.call(p.Context(), link.Dial(), "Chat")
		one, two := p.open("Chat"), p.open("Chat")
		both := func(what string, calls ...*call) {
			for range 2 {
				p.sees(what+", and this one serves another server with a third Chat", "server", second, append(calls, three)...)
				p.sees(what+", and this one serves no other", "server", p.server, calls...)
			}
		}
		both("a server has 2 liveStreams, 2 Chats are open there", one, two)
		one.cancel()
		time.Sleep(soon)
		both("a server has 2 liveStreams, one of 2 Chats ended there", two)
		p.sees("a liveStreams was given to nobody", "server", third)
	}, grpc.StatsHandler(second))
}

// A handler calls on, with its context, and one liveStreams sees both.
func TestAStreamThatAHandlerOpensIsAnother(t *testing.T) {
	at(t, func(p *place) {
		both := newLiveStreams()
		link := p.NewLink()
		link.Serve(p, grpc.StatsHandler(both))
		front, back := link.Dial(), p.link.Dial(grpc.WithStatsHandler(both))
		opened := make(chan *call, 1)
		p.downstream = func(ctx context.Context) {
			time.Sleep(time.Minute)
			opened <- p.call(ctx, back, "Watch")
		}
		outer := p.call(p.Context(), front, "Chat")
		time.Sleep(2 * time.Minute)
		inner := <-opened
		outer.began = outer.began.Add(lab.Latency) // seen on the server
		const what = "a Chat's handler opened a Watch with its own context, and one liveStreams is on the server of the one and on the connection of the other"
		p.sees(what, "client", both, outer, inner)
		inner.cancel()
		time.Sleep(soon)
		p.sees(what+", and the Watch ended", "client", both, outer)
		outer.cancel()
		time.Sleep(soon)
		p.sees(what+", and both ended", "client", both)
	})
}

func connection() *stats.ConnTagInfo {
	return &stats.ConnTagInfo{RemoteAddr: &net.TCPAddr{}, LocalAddr: &net.TCPAddr{}}
}
func tagged(method string) *stats.RPCTagInfo { return &stats.RPCTagInfo{FullMethodName: name(method)} }
func inHeader(method string) *stats.InHeader {
	return &stats.InHeader{FullMethod: name(method), RemoteAddr: &net.TCPAddr{}, LocalAddr: &net.TCPAddr{}}
}
func outHeader(method string) *stats.OutHeader {
	return &stats.OutHeader{Client: true, FullMethod: name(method), RemoteAddr: &net.TCPAddr{}, LocalAddr: &net.TCPAddr{}}
}

// events gives a liveStreams the events of one RPC, as a server does. What it
// returns gives the last ones.
func events(live *liveStreams, method string, stream bool) (end func()) {
	ctx := live.TagRPC(context.Background(), tagged(method))
	live.HandleRPC(ctx, inHeader(method))
	began, gone := time.Now(), strings.HasPrefix(method, "Gone")
	if !gone {
		live.HandleRPC(ctx, &stats.Begin{BeginTime: began, IsServerStream: stream})
	}
	return func() {
		live.HandleRPC(ctx, &stats.OutTrailer{})
		if !gone {
			live.HandleRPC(ctx, &stats.End{BeginTime: began, EndTime: time.Now()})
		}
	}
}

func TestNothingIsKeptOfWhatHasEnded(t *testing.T) {
	const n = 20_000
	for _, kind := range []struct {
		what string
		do   func(live *liveStreams, i int)
	}{
		{"streams that have ended", func(live *liveStreams, _ int) { events(live, "Watch", true)() }},
		{"unary calls", func(live *liveStreams, _ int) { events(live, "Publish", false)() }},
		{"calls of methods that the server does not have, so without Begin and End", func(live *liveStreams, i int) {
			events(live, fmt.Sprint("Gone", i), false)()
		}},
		{"connections that have closed", func(live *liveStreams, _ int) {
			ctx := live.TagConn(context.Background(), connection())
			live.HandleConn(ctx, &stats.ConnBegin{})
			live.HandleConn(ctx, &stats.ConnEnd{})
		}},
	} {
		live := newLiveStreams()
		before := heap()
		for i := range n {
			kind.do(live, i)
			if i >= 1000 {
				continue // once was not chance
			}
			if got := live.Snapshot(); len(got) > 0 {
				t.Fatalf("HandleRPC has returned from the last event of an RPC, and Snapshot returned %s, want none", text(got))
			}
		}
		if kept := heap() - before; kept > n*8 {
			t.Fatalf("after %d %s: %d KiB are still in use, want what does not grow with them", n, kind.what, kept>>10)
		}
		runtime.KeepAlive(live)
	}
}

func heap() int64 {
	var m runtime.MemStats
	for range 2 { // what finalizers and pools held
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// With -race this also finds what is shared without a lock.
func TestManyStreamsAtOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // side by side, also with -cpu 1
	const stay, pass = 50, 200
	live := newLiveStreams()
	var all sync.WaitGroup
	var mu sync.Mutex
	var last []func()
	for range 8 {
		all.Go(func() {
			for range stay { // so that a change takes long if it copies all
				end := events(live, "Chat", true)
				mu.Lock()
				last = append(last, end)
				mu.Unlock()
			}
			for i := range pass {
				end := events(live, "Watch", true)
				if i%4 == 0 {
					live.Snapshot()
				}
				events(live, "Publish", false)()
				end()
			}
		})
	}
	all.Wait()
	const lost = "was a change lost between two goroutines?"
	if got := len(live.Snapshot()); got != 8*stay {
		t.Fatalf("8 goroutines have opened %d streams each, and opened and ended %d more: Snapshot returned %d, want %d: %s", stay, pass, got, 8*stay, lost)
	}
	for _, end := range last {
		all.Go(end)
	}
	all.Wait()
	if got := len(live.Snapshot()); got != 0 {
		t.Fatalf("8 goroutines have opened %d streams each, and all have ended: Snapshot returned %d, want none: %s", stay+pass, got, lost)
	}
}
