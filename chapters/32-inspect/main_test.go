package main

import (
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
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	channelzpb "google.golang.org/grpc/channelz/grpc_channelz_v1"
	channelz "google.golang.org/grpc/channelz/service"
	"google.golang.org/grpc/codes"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

type watchClient = grpc.ServerStreamingClient[feedv1.Event]

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// served is the chapter's server over TCP, with a connection to it, until the
// test ends.
func served(t *testing.T, options ...grpc.ServerOption) (addr string, conn *grpc.ClientConn) {
	t.Helper()
	t.Cleanup(func() { settled(t) })
	addr, end, err := serve(options...)
	if err == nil {
		t.Cleanup(end)
		conn, err = dial(addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return addr, conn
}

// settled waits until nothing is left of the streams of this test, which the
// next one would count.
func settled(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); len(find(watcher))+len(find(".(*server).watch")) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("streams are left: %v", find(watcher))
		}
	}
}

// With the argument serve the program stays until Ctrl-C.
func TestItServesUntilItIsInterruptedOverTCP(t *testing.T) {
	t.Cleanup(func() { settled(t) })
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- hold(ctx, w, 0)
		w.Close()
	}()
	line := make([]byte, 100)
	n, err := r.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.Fields(string(line[:n]))[2]
	conn, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := firstEvent(t.Context(), feedv1.NewFeedServiceClient(conn), "alerts"); err != nil {
		t.Errorf("the server that stays said %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("interrupted, hold returned %v", err)
	}
}

// brief takes from an entry of a profile what differs from run to run and from
// machine to machine, and frames which say nothing: the server's own, the
// bench's, those of pprof.Do.
func (g group) brief() string {
	labels := g.labels
	if labels == "" {
		labels = "none"
	}
	out := fmt.Sprintf("%d goroutine, labels: %s\n", g.n, labels)
	frame := regexp.MustCompile(`(?m)^#\t\S+\t(\S+)\+0x\w+\s+\S*/(\S+:\d+)$`)
	for _, m := range frame.FindAllStringSubmatch(g.frames, -1) {
		fn := regexp.MustCompile(`example\.com/mygrpc/chapters/[^./]+`).ReplaceAllString(m[1], "main")
		fn = strings.TrimPrefix(fn, "example.com/mygrpc/gen/feed/v1.")
		if !regexp.MustCompile(`internal/lab\.|grpc\.\(\*Server\)|ChainStreamInterceptor|chainStreamInterceptors|getChainStreamHandler|pprof\.Do|Watch\.func`).MatchString(fn) {
			if !strings.HasPrefix(fn, "main.") {
				m[2] = "" // a number of another version
			}
			out += strings.TrimRight(fmt.Sprintf("    %-58s %s", fn, m[2]), " ") + "\n"
		}
	}
	return out
}

// find returns the entries of the profile whose frames have what.
func find(what string) (found []group) {
	for _, g := range profile("goroutine") {
		if strings.Contains(g.frames, what) {
			found = append(found, g)
		}
	}
	return found
}

const watcher = "grpc.newClientStreamWithParams.func4"

// The recording: a leaked stream on the wire, and both ends in a profile.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(&server{})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		if err := firstEventLabelled(ctx, client, "alerts"); err != nil {
			l.Fatal(err)
		}
		link.Note(lab.Client, "the reader leaves")
		time.Sleep(time.Hour)
		link.Note(lab.Client, "an hour later")
		text := link.Ladder() + "A goroutine profile, debug=1, of the client and of the server:\n"
		for _, what := range []string{watcher, ".(*server).watch"} {
			found := find(what)
			if len(found) != 1 {
				l.Fatalf("%d entries have %s, want 1", len(found), what)
			}
			text += found[0].brief()
		}
		lab.Golden(t, "wire.txt", text)
	}, lab.Lasts(2*time.Hour))
}

// odd has a Watch that never stops sending, a Chat that only receives, a deaf
// UploadEvents, which returns when it is let go.
type odd struct {
	feedv1.UnimplementedFeedServiceServer
	release chan struct{}
}

func (odd) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	for {
		if err := stream.Send(&feedv1.Event{Body: strings.Repeat("x", 1024)}); err != nil {
			return err
		}
	}
}

func (odd) Chat(stream grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]) error {
	_, err := stream.Recv()
	return err
}

func (o odd) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	<-o.release
	return nil
}

// Which frame says what a goroutine waits for. Read in grpc-go: stream.go
// (newClientStreamWithParams), internal/transport/flowcontrol.go
// ((*writeQuota).get), transport.go ((*recvBufferReader).read and readClient),
// http2_client.go (NewStream).
func TestTwoFramesOfGRPCSayWhatIsWaitedFor(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link, o := l.NewLink(), odd{release: make(chan struct{})}
		link.Serve(o, grpc.MaxConcurrentStreams(3))
		client := feedv1.NewFeedServiceClient(link.Dial())
		ctx, cancel := context.WithCancel(l.Context())
		var all sync.WaitGroup
		if _, err := client.Watch(ctx, &feedv1.WatchRequest{}); err != nil { // fills its window
			l.Fatal(err)
		}
		chat, err := client.Chat(ctx)
		if err != nil {
			l.Fatal(err)
		}
		all.Go(func() { chat.Recv() })
		upload, err := client.UploadEvents(ctx)
		if err != nil {
			l.Fatal(err)
		}
		all.Go(func() {
			for upload.Send(&feedv1.Event{Body: strings.Repeat("x", 1024)}) == nil {
			}
		})
		all.Go(func() { upload.RecvMsg(&feedv1.UploadResult{}) })
		time.Sleep(time.Second)
		all.Go(func() { client.Chat(ctx) }) // the fourth
		time.Sleep(time.Second)
		const caller = "TestTwoFramesOfGRPCSayWhatIsWaitedFor.func"
		text := fmt.Sprintf("%-26s %-26s %s\n", "who waits", "frame of grpc", "frame of internal/transport")
		for _, wait := range []struct{ what, outer, inner, yours string }{
			{"handler in Send", "(*serverStream).SendMsg", "(*writeQuota).get", ".odd.Watch"},
			{"handler in Recv", "(*serverStream).RecvMsg", "(*recvBufferReader).ReadMessageHeader", ".odd.Chat"},
			{"handler, elsewhere", "(*Server).processRPC", "", ".odd.UploadEvents"},
			{"client in Send", "(*clientStream).SendMsg", "(*writeQuota).get", caller},
			{"client in Recv", "(*clientStream).RecvMsg", "(*recvBufferReader).readMessageHeaderClient", caller},
			{"client in Recv, no header", "(*clientStream).RecvMsg", "(*ClientStream).waitOnHeader", caller},
			{"client, for a place", "newClientStreamWithParams", "(*http2Client).NewStream", caller},
		} {
			var inner []string
			for _, g := range profile("goroutine") {
				if strings.Contains(g.frames, wait.yours) && strings.Contains(g.frames, "grpc."+wait.outer+"+") &&
					(wait.inner != "" && strings.Contains(g.frames, "transport."+wait.inner+"+") || wait.inner == "" && !strings.Contains(g.frames, "/transport.")) {
					inner = append(inner, g.frames)
				}
			}
			if len(inner) != 1 {
				l.Errorf("%s: %d entries of the profile have %q and %q, want 1", wait.what, len(inner), wait.outer, wait.inner)
			}
			text += strings.TrimRight(fmt.Sprintf("%-26s %-26s %s", wait.what, wait.outer, wait.inner), " ") + "\n"
		}
		// The watcher of each stream has no frame of the program.
		for _, g := range find(watcher) {
			if strings.Count(g.frames, "\n") != 1 {
				l.Errorf("a watcher has more than its one frame:\n%s", g.frames)
			}
		}
		text += fmt.Sprintf("%-26s %s\n", "nobody: it was left", "newClientStreamWithParams.func4")
		cancel()
		close(o.release)
		all.Wait()
		lab.Golden(t, "waits.txt", text)
	})
}

// streams counts begun and not ended RPCs of one side, as a stats.Handler.
type streams struct {
	mu   sync.Mutex
	open int
	log  []string
}

func (s *streams) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	s.note("TagRPC " + info.FullMethodName[strings.LastIndex(info.FullMethodName, "/")+1:])
	return ctx
}
func (s *streams) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (s *streams) HandleConn(_ context.Context, c stats.ConnStats) {
	if _, ok := c.(*stats.ConnEnd); ok {
		s.note("ConnEnd")
	}
}
func (s *streams) HandleRPC(_ context.Context, r stats.RPCStats) {
	switch r := r.(type) {
	case *stats.Begin:
		s.note(fmt.Sprintf("Begin client streams: %v, server streams: %v", r.IsClientStream, r.IsServerStream))
		s.add(1)
	case *stats.End:
		s.note(fmt.Sprint("End ", status.Code(r.Error)))
		s.add(-1)
	}
}
func (s *streams) add(n int) { s.mu.Lock(); defer s.mu.Unlock(); s.open += n }
func (s *streams) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, what)
}
func (s *streams) take() (open int, log []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	log, s.log = s.log, nil
	return s.open, log
}

// A view is what channelz says of the one channel and the one server that are
// open, asked without a connection, which it would count.
type view struct {
	channel, server count // their calls
	open            int64 // streams of the server's connections
	conns           int
	text            string
}

// direct is a grpc.ServiceRegistrar.
type direct struct{ channelzpb.ChannelzServer }

func (d *direct) RegisterService(_ *grpc.ServiceDesc, impl any) {
	d.ChannelzServer = impl.(channelzpb.ChannelzServer)
}

func ask(l *lab.Lab) (v view) {
	l.Helper()
	var d direct
	channelz.RegisterChannelzServiceToServer(&d)
	ctx := l.Context()
	channels, err := d.GetTopChannels(ctx, &channelzpb.GetTopChannelsRequest{})
	servers, err2 := d.GetServers(ctx, &channelzpb.GetServersRequest{})
	if err != nil || err2 != nil || len(channels.GetChannel()) != 1 || len(servers.GetServer()) != 1 {
		l.Fatalf("channelz has %v, %v (%v, %v), want one of each", channels, servers, err, err2)
	}
	srv := servers.GetServer()[0]
	refs, err := d.GetServerSockets(ctx, &channelzpb.GetServerSocketsRequest{ServerId: srv.GetRef().GetServerId()})
	if err != nil {
		l.Fatal(err)
	}
	v.text = prototext.Format(channels) + prototext.Format(servers)
	for _, ref := range refs.GetSocketRef() {
		socket, err := d.GetSocket(ctx, &channelzpb.GetSocketRequest{SocketId: ref.GetSocketId()})
		if err != nil {
			l.Fatal(err)
		}
		data := socket.GetSocket().GetData()
		v.open += data.GetStreamsStarted() - data.GetStreamsSucceeded() - data.GetStreamsFailed()
		v.conns++
		v.text += prototext.Format(socket)
	}
	c, s := channels.GetChannel()[0].GetData(), srv.GetData()
	v.channel = count{c.GetCallsStarted(), c.GetCallsSucceeded() + c.GetCallsFailed()}
	v.server = count{s.GetCallsStarted(), s.GetCallsSucceeded() + s.GetCallsFailed()}
	return v
}

// What each window counts of four leaks, a second after the reader has left.
func TestEachWindowSeesItsPart(t *testing.T) {
	text := fmt.Sprintf("%-34s%10s%24s%24s\n%-34s%10s%8s%8s%8s%12s%12s\n", "what is left", "profile", "channelz", "stats.Handler", "", "", "channel", "socket", "server", "client", "server")
	for _, leak := range []struct {
		what, frame string
		leave       func(ctx context.Context, cancel func(), client feedv1.FeedServiceClient, lines chan string) error
	}{
		{"left without a cancel", watcher, func(ctx context.Context, _ func(), client feedv1.FeedServiceClient, _ chan string) error {
			_, err := client.Chat(ctx)
			return err
		}},
		{"waits for a place, behind another", "http2Client).NewStream", func(ctx context.Context, _ func(), client feedv1.FeedServiceClient, _ chan string) error {
			if _, err := client.Chat(ctx); err != nil {
				return err
			}
			go client.Chat(ctx)
			return nil
		}},
		{"cancelled, the handler is deaf", ".odd.UploadEvents", func(ctx context.Context, cancel func(), client feedv1.FeedServiceClient, _ chan string) error {
			stream, err := client.UploadEvents(ctx)
			if err == nil {
				_, err = stream.Header()
			}
			cancel()
			return err
		}},
		{"cancelled, a pump has no reader", "32-inspect.pump+", func(ctx context.Context, cancel func(), client feedv1.FeedServiceClient, lines chan string) error {
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{})
			go pump(stream, lines)
			time.Sleep(100 * time.Millisecond)
			cancel()
			return err
		}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			var client, server streams
			o := odd{release: make(chan struct{})}
			link := l.NewLink()
			link.Serve(o, grpc.StatsHandler(&server), grpc.MaxConcurrentStreams(1))
			conn := link.Dial(grpc.WithStatsHandler(&client))
			lines := make(chan string)
			if leak.frame != "32-inspect.pump+" {
				close(lines)
			}
			if err := leak.leave(ctx, cancel, feedv1.NewFeedServiceClient(conn), lines); err != nil {
				l.Fatal(err)
			}
			time.Sleep(time.Second)
			v := ask(l)
			clients, _ := client.take()
			handlers, _ := server.take()
			goroutines := 0
			for _, g := range find(leak.frame) {
				goroutines += g.n
			}
			text += fmt.Sprintf("%-34s%10d%8d%8d%8d%12d%12d\n", leak.what, goroutines, v.channel.open(), v.open, v.server.open(), clients, handlers)
			cancel()
			close(o.release)
			for range lines { // until the pump has ended
			}
		})
	}
	lab.Golden(t, "windows.txt", text)
}

// pump hands on to a reader that has left.
func pump(stream watchClient, lines chan<- string) {
	defer close(lines)
	for {
		ev, err := stream.Recv()
		if err != nil {
			return
		}
		lines <- ev.GetBody()
	}
}

func TestChannelzHasNumbersAndForgetsThem(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(&server{})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		if err := firstEvent(ctx, client, "alerts"); err != nil {
			l.Fatal(err)
		}
		before := ask(l)
		if !strings.Contains(before.text, "streams_started") || strings.Contains(before.text, "Watch") || strings.Contains(before.text, "feed.v1") {
			l.Errorf("channelz says more than numbers, or not these:\n%s", before.text)
		}
		link.Cut()
		time.Sleep(time.Second)
		after := ask(l)
		l.Logf("%d stream open on %d connection; after a cut %d connections; the server counts %d call, %d ended", before.open, before.conns, after.conns, after.server.started, after.server.ended)
		if before.open != 1 || before.conns != 1 || after.conns != 0 || after.server != (count{1, 1}) {
			l.Errorf("want 1 stream on 1 connection, then none, and 1 call that has ended")
		}
	})
}

// What asks over a connection is a stream, too, and is counted. Of 60 the answer
// without MaxResults has 50 (internal/channelz/channelmap.go, getServerSockets).
func TestTheQuestionCountsItselfOverTCP(t *testing.T) {
	addr, conn := served(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{})
	for cancel(); err == nil; { // it ends by a RST_STREAM
		_, err = stream.Recv()
	}
	c := channelzpb.NewChannelzClient(conn)
	servers, err := c.GetServers(t.Context(), &channelzpb.GetServersRequest{})
	if err != nil || len(servers.GetServer()) != 1 {
		t.Fatalf("%v, %v, want one server", servers, err)
	}
	want := []count{{6, 5}} // Watch, both questions here, all three of sockets: the last is open
	for range 59 {
		other, err := dial(addr)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if err := firstEvent(t.Context(), feedv1.NewFeedServiceClient(other), "alerts"); err != nil {
			t.Fatal(err)
		}
		want = append(want, count{1, 0})
	}
	refs, err := c.GetServerSockets(t.Context(), &channelzpb.GetServerSocketsRequest{ServerId: servers.GetServer()[0].GetRef().GetServerId()})
	if err != nil || len(refs.GetSocketRef()) != 50 || refs.GetEnd() {
		t.Errorf("of 60 connections channelz lists %d, end %v, %v, want 50 and not the end", len(refs.GetSocketRef()), refs.GetEnd(), err)
	}
	if all, err := sockets(t.Context(), c); err != nil || !slices.Equal(all, want) {
		t.Errorf("sockets returned %v, %v, want %v", all, err, want)
	}
}

// Labels are of the goroutine, and a goroutine that it starts inherits them.
func TestLabelsSayForWhom(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		for topic, n := range map[string]int{"alerts": 3, "builds": 20} {
			for i := range n {
				read := firstEventLabelled
				if i == 0 {
					read = firstEvent
				}
				if err := read(ctx, client, topic); err != nil {
					l.Fatal(err)
				}
			}
		}
		got := map[string][]string{}
		for _, what := range []string{watcher, ".(*server).watch"} {
			for _, g := range find(what) {
				got[what] = append(got[what], fmt.Sprint(g.n, " ", g.labels))
			}
			slices.Sort(got[what])
			l.Logf("%s: %q", what, got[what])
		}
		if want := []string{`19 {"caller":"firstEventLabelled", "topic":"builds"}`, "2 ", `2 {"caller":"firstEventLabelled", "topic":"alerts"}`}; !slices.Equal(got[watcher], want) {
			l.Errorf("the watchers are %q, want %q", got[watcher], want)
		}
		if want := []string{`20 {"topic":"builds"}`, `3 {"topic":"alerts"}`}; !slices.Equal(got[".(*server).watch"], want) {
			l.Errorf("the handlers are %q, want %q", got[".(*server).watch"], want)
		}
	})
}

// A text dump, as after a panic or SIGQUIT, has labels with a setting alone
// (runtime/traceback.go, goroutineheader).
func TestATextDumpHasLabelsIfItIsTold(t *testing.T) {
	for _, setting := range []string{"0", "1"} {
		t.Setenv("GODEBUG", "tracebacklabels="+setting)
		var header string
		pprof.Do(t.Context(), pprof.Labels("topic", "alerts"), func(context.Context) {
			buf := make([]byte, 1024)
			header, _, _ = strings.Cut(string(buf[:runtime.Stack(buf, false)]), "\n")
		})
		t.Logf("tracebacklabels=%s: %s", setting, regexp.MustCompile(`\d+`).ReplaceAllString(header, "N"))
		if has := strings.Contains(header, "alerts"); has != (setting == "1") {
			t.Errorf("tracebacklabels=%s, and the header is %q", setting, header)
		}
	}
}

// grpc-go's own label (server.go, (*Server).handleStream) stands in the context
// of the stream, so that the handler's are added to it. It is read when the
// program starts: the test starts itself again.
func TestTheEnvironmentLabelsTheMethodOverTCP(t *testing.T) {
	const setting = "GRPC_GO_SERVER_GOROUTINE_LABELS"
	if os.Getenv(setting) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		child := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
		child.Env = append(os.Environ(), setting+"=grpc.method=true")
		out, err := child.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "labels: ") {
			t.Errorf("with %s: %v\n%s", setting, err, out)
		}
		t.Log(regexp.MustCompile(`labels: .*`).FindString(string(out)))
		return
	}
	lab.OverTCP(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		if err := firstEvent(ctx, client, "alerts"); err != nil {
			l.Fatal(err)
		}
		found := find(".(*server).watch")
		if want := `{"grpc.method":"/feed.v1.FeedService/Watch", "topic":"alerts"}`; len(found) != 1 || found[0].labels != want {
			l.Errorf("the profile has %+v, want one with labels %s", found, want)
		} else {
			l.Logf("labels: %s", found[0].labels)
		}
	})
}

// What the exercise builds on: server.go ((*Server).handleStream, processRPC),
// stream.go (newAttemptLocked, (*csAttempt).finish).
func TestAStatsHandlerSeesBeginAndEndOfEachRPC(t *testing.T) {
	begin := func(client, server bool) string {
		return fmt.Sprintf("Begin client streams: %v, server streams: %v", client, server)
	}
	lab.Run(t, func(l *lab.Lab) {
		var client, server streams
		o := odd{release: make(chan struct{})}
		link := l.NewLink()
		link.Serve(o, grpc.StatsHandler(&server))
		conn := link.Dial(grpc.WithStatsHandler(&client))
		c := feedv1.NewFeedServiceClient(conn)
		want := func(what string, s *streams, want ...string) {
			l.Helper()
			if _, got := s.take(); !slices.Equal(got, want) {
				l.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		c.Publish(l.Context(), &feedv1.PublishRequest{})
		time.Sleep(time.Second)
		want("unary, client", &client, "TagRPC Publish", begin(false, false), "End Unimplemented")
		want("unary, server", &server, "TagRPC Publish", begin(false, false), "End Unimplemented")
		conn.Invoke(l.Context(), "/feed.v1.FeedService/Gone", &feedv1.PublishRequest{}, &feedv1.PublishResponse{})
		time.Sleep(time.Second)
		want("no such method, client", &client, "TagRPC Gone", begin(false, false), "End Unimplemented")
		want("no such method, server", &server, "TagRPC Gone")

		ctx, cancel := context.WithCancel(l.Context())
		var uploads []grpc.ClientStreamingClient[feedv1.Event, feedv1.UploadResult]
		for range 2 {
			upload, err := c.UploadEvents(ctx)
			if err == nil {
				_, err = upload.Header()
			}
			if err != nil {
				l.Fatal(err)
			}
			uploads = append(uploads, upload)
		}
		link.Cut()
		time.Sleep(time.Second)
		two := []string{"TagRPC UploadEvents", begin(true, false), "TagRPC UploadEvents", begin(true, false), "ConnEnd"}
		want("cut, client", &client, two...)
		if err := uploads[0].RecvMsg(&feedv1.UploadResult{}); status.Code(err) != codes.Unavailable {
			l.Errorf("after a cut Recv returned %v", err)
		}
		want("cut, the client calls Recv", &client, "End Unavailable")
		cancel()
		time.Sleep(time.Second)
		want("cut, the client cancels", &client, "End Canceled")
		want("cut, deaf handlers", &server, two...)
		close(o.release)
		time.Sleep(time.Second)
		want("the handlers return", &server, "End OK", "End OK")
		l.Log("after a cut the client's End comes with its Recv or its cancel, and the server's with its handler's return")
	})
}

func TestReflectionTellsTheWholeAPIOverTCP(t *testing.T) {
	var server streams
	_, conn := served(t, grpc.StatsHandler(&server))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		stream.Send(req) // if this fails, Recv says why
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	list := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	got := []string{}
	for _, s := range list.GetListServicesResponse().GetService() {
		got = append(got, s.GetName())
	}
	file := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "feed.v1.FeedService"}})
	for _, b := range file.GetFileDescriptorResponse().GetFileDescriptorProto() {
		var fd descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(b, &fd); err != nil || fd.GetSourceCodeInfo() != nil {
			t.Errorf("%v, or comments in %v", err, fd.GetName())
		}
		for _, s := range fd.GetService() {
			for _, m := range s.GetMethod() {
				got = append(got, fmt.Sprintf("%s %v %v", m.GetName(), m.GetClientStreaming(), m.GetServerStreaming()))
			}
		}
	}
	want := []string{"feed.v1.FeedService", "grpc.channelz.v1.Channelz", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
		"Publish false false", "Watch false true", "UploadEvents true false", "Chat true true", "Ingest true true", "PutBlob true false"}
	if !slices.Equal(got, want) {
		t.Errorf("by reflection the services and methods are %q, want %q", got, want)
	}
	if open, _ := server.take(); open != 1 { // grpcurl, too, leaves it open
		t.Errorf("after two answers %d RPCs are open, want 1: reflection is a stream", open)
	}
	t.Logf("%q, without comments, over one stream that stays open", got)
}

// Without reflection a call by reflection fails.
func TestWithoutReflectionThereIsNoAnswerOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(&server{})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream, err := reflectionpb.NewServerReflectionClient(link.Dial()).ServerReflectionInfo(ctx)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.Unimplemented {
			l.Errorf("without reflection the answer is %v, want Unimplemented", err)
		}
	})
}

// runtime/pprof/pprof.go, lockProfiles. With the experiment leak_test.go runs.
func TestTheLeakProfileIsAnExperimentInGo126(t *testing.T) {
	found := pprof.Lookup("goroutineleak") != nil
	experiment := strings.Contains(runtime.Version(), "goroutineleakprofile")
	t.Logf("%s has the profile: %v", runtime.Version(), found)
	if strings.HasPrefix(runtime.Version(), "go1.26") && found != experiment {
		t.Errorf("the profile is there: %v", found)
	}
}
