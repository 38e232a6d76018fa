package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// many is how many streams are opened, where a test does not say otherwise.
const many = 1000

// Each line of the story is told with fewer streams than the program has.
func TestRunLeavesNothingBehind(t *testing.T) {
	defer func(n uint) { *streams = n }(*streams)
	*streams = 2
	lab.EndsWell(t, run)
}

// A feed is a Watch handler. The topics of openOnOne are numbers, from 0.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	handle func(topic string, stream watchServer) error
	late   bool // the header goes with the first event
}

func (f feed) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	if !f.late {
		if err := stream.SendHeader(nil); err != nil {
			return err
		}
	}
	return f.handle(req.GetTopic(), stream)
}

func untilGone(stream watchServer) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// sendsAt sends n events, one each second after start, and stays.
func sendsAt(start time.Time, n int) func(string, watchServer) error {
	return func(_ string, stream watchServer) error {
		for i := range n {
			select {
			case <-time.After(time.Until(start.Add(time.Duration(i+1) * time.Second))):
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
			if err := stream.Send(&feedv1.Event{Id: strconv.Itoa(i + 1)}); err != nil {
				return err
			}
		}
		return untilGone(stream)
	}
}

// open is openOnOne, or the end of the test.
func open(l *lab.Lab, ctx context.Context, client feedv1.FeedServiceClient, n int) []watchClient {
	l.Helper()
	all, err := openOnOne(ctx, client, n)
	if err != nil {
		l.Fatal(err)
	}
	return all
}

// recorded returns the figures of a plot: for 1,000, 10,000 and 100,000 streams.
func recorded(t *testing.T, file string) (figures []float64) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -run - -bench Streams -update makes it)", err)
	}
	_, list, _ := strings.Cut(string(text), "bar [")
	list, _, _ = strings.Cut(list, "]")
	for _, figure := range strings.Split(list, ", ") {
		x, err := strconv.ParseFloat(figure, 64)
		if err != nil {
			t.Fatal(err)
		}
		figures = append(figures, x)
	}
	return figures
}

// goroutines counts the goroutines that have a function on their stack whose
// name contains fn.
func goroutines(fn string) (n int) {
	var profile strings.Builder
	pprof.Lookup("goroutine").WriteTo(&profile, 1) // equal stacks are one entry
	for entry := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(entry, fn) {
			head, _, _ := strings.Cut(entry, " @ ")
			count, _ := strconv.Atoi(head[strings.LastIndex(head, "\n")+1:])
			n += count
		}
	}
	return n
}

const grpcs = "google.golang.org/grpc" // is in the names of its functions

// What a stream takes is measured as the benchmark does it. On linux/amd64 with Go
// 1.26, also with -race, -cpu 1,2,4 and GOGC=1, it was 14,188 to 18,715 bytes. The
// runtime starts stacks at 2 KiB or at 4, by what the last collection saw, and
// fills holes that earlier tests left; so half more or less than recorded is
// allowed. The goroutines are exact: the client's waits for the end of the context
// (stream.go, newClientStreamWithParams), the server's runs the handler (server.go,
// serveStreams). What serves the connection is there once.
func TestAThousandStreamsTakeWhatIsRecordedOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		h, err := serve(&server{})
		if err != nil {
			l.Fatal(err)
		}
		defer h.end()
		client, err := h.dial()
		if err != nil {
			l.Fatal(err)
		}
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		open(l, ctx, client, 1) // the connection is up
		l.Settle()              // some goroutines live for a moment
		before, ofGRPC := measure(), goroutines(grpcs)
		all := open(l, ctx, client, many)
		after := measure()
		bytes, _ := after.since(before, many)
		stacks := float64(after.stacks-before.stacks) / many
		count := float64(goroutines(grpcs)-ofGRPC) / many
		want := recorded(t, "bytes.mmd")[0] * 1024
		if bytes < 0.5*want || bytes > 1.5*want || bytesAStream < 0.9*want || bytesAStream > 1.1*want {
			l.Errorf("a stream takes %.0f bytes, main.go says %d, and recorded are %.0f", bytes, bytesAStream, want)
		}
		if stacks < bytes/2 {
			l.Errorf("of %.0f bytes %.0f are stacks, want more than half", bytes, stacks)
		}
		if count != goroutinesAStream || h.accepted.Load() != 1 {
			l.Errorf("%d streams on %d connections take %.2f goroutines each, want 1 and %d", len(all), h.accepted.Load(), count, goroutinesAStream)
		}
		for fn, want := range map[string]int{
			"grpc.newClientStreamWithParams.func": many + 1, "(*Server).handleStream": many + 1, // and the one before
			"(*loopyWriter).run": 2, "(*http2Client).reader": 1, "(*http2Server).HandleStreams": 1,
		} {
			if n := goroutines(fn); n != want {
				l.Errorf("%d goroutines are in %s, want %d", n, fn, want)
			}
		}
		l.Logf("%d streams, %d connection: each takes %.0f bytes, %.0f of them stacks, and %.0f goroutines", many, h.accepted.Load(), bytes, stacks, count)
	})
}

// A stream that is silent has no buffers, so there is nothing that could grow.
func TestTheRecordedCostIsFlat(t *testing.T) {
	for _, plot := range []struct {
		file, unit string
		spread     float64
	}{{"bytes.mmd", "KiB", 1.15}, {"time.mmd", "µs of a processor", 3}} {
		figures := recorded(t, plot.file)
		if least, most := slices.Min(figures), slices.Max(figures); len(figures) != 3 || most/least > plot.spread {
			t.Errorf("%s says %v %s, want three figures that differ by a factor of %v at most", plot.file, figures, plot.unit, plot.spread)
		}
		t.Logf("a stream, of 1,000, 10,000 and 100,000: %v %s", figures, plot.unit)
	}
}

// Each connection has a reader and a writer on both sides, and their buffers of
// 32 KiB (writeBufferSize and readBufferSize in dialoptions.go and server.go). A
// stream with a connection of its own took 32 to 82 KB; its stacks scatter, so the
// test compares its heap, 27 to 33 KB, with all that a stream of many takes.
func TestAConnectionEachTakesMoreOverTCP(t *testing.T) {
	const n = 20
	lab.OverTCP(t, func(l *lab.Lab) {
		h, err := serve(&server{})
		if err != nil {
			l.Fatal(err)
		}
		defer h.end()
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		l.Settle()
		before, ofGRPC := measure(), goroutines(grpcs)
		all, err := openEachOnItsOwn(ctx, h, n)
		if err != nil {
			l.Fatal(err)
		}
		heap := (measure().heap - before.heap) / n
		l.Settle()
		count := float64(goroutines(grpcs)-ofGRPC) / n
		if h.accepted.Load() != n || count != 10 || heap < bytesAStream {
			l.Errorf("%d streams on %d connections take %d bytes of heap and %.2f goroutines each, want %d, at least %d and 10", len(all), h.accepted.Load(), heap, count, n, bytesAStream)
		}
		l.Logf("%d streams, %d connections: each takes %d bytes of heap and %.0f goroutines", n, h.accepted.Load(), heap, count)
	})
}

// To open a stream is to send two frames. The connection was IDLE before the
// last one: it is made anew.
func TestAStreamNeedsNoHandshake(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(feed{handle: func(_ string, stream watchServer) error { return untilGone(stream) }})
		conn := link.Dial(grpc.WithIdleTimeout(time.Minute))
		client := feedv1.NewFeedServiceClient(conn)
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		began := time.Now()
		for i := range many {
			if _, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: strconv.Itoa(i)}); err != nil {
				l.Fatal(err)
			}
		}
		opened := time.Since(began)
		time.Sleep(2 * lab.Latency)
		byStream := map[uint32]string{}
		var last uint32
		for _, f := range link.Frames() {
			if f.Stream == 0 {
				continue // credit for the connection
			}
			byStream[f.Stream] += f.From.String() + " " + f.Type + " "
			last = max(last, f.Stream)
			if f.Conn != 0 || f.At > lab.Latency || f.Stream%2 == 0 {
				l.Fatalf("connection %d, stream %d: %s at %v, want one connection, odd numbers, and all within a round trip", f.Conn, f.Stream, f.Type, f.At)
			}
		}
		for id, frames := range byStream {
			if frames != "client HEADERS client DATA server HEADERS " {
				l.Fatalf("stream %d: %s", id, frames)
			}
		}
		if opened != 0 || len(byStream) != many || last != 2*many-1 {
			l.Errorf("%d streams were opened in %v, the last is number %d, want %d, no time and %d", len(byStream), opened, last, many, 2*many-1)
		}
		l.Logf("%d streams were opened in %v on one connection, numbers 1 to %d, and served a round trip later", len(byStream), opened, last)

		cancel()
		time.Sleep(2 * time.Minute)
		ctx, cancel = context.WithCancel(l.Context())
		defer cancel()
		for i, want := range []time.Duration{5 * lab.Latency, 2 * lab.Latency} {
			began = time.Now()
			open(l, ctx, client, 1)
			if took := time.Since(began); took != want {
				l.Errorf("on a new connection stream %d was served after %v, want %v", i+1, took, want)
			}
			l.Logf("on a new connection stream %d is served after %v", i+1, time.Since(began))
		}
	})
}

// The certificate is that of net/http/httptest.
func TestTLSShakesHandsOncePerConnectionOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		web := httptest.NewTLSServer(nil)
		defer web.Close()
		trusted := x509.NewCertPool()
		trusted.AddCert(web.Certificate())
		var handshakes atomic.Int32
		srv := grpc.NewServer(grpc.WaitForHandlers(true), grpc.Creds(credentials.NewTLS(&tls.Config{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				handshakes.Add(1)
				return &web.TLS.Certificates[0], nil
			},
		})))
		feedv1.RegisterFeedServiceServer(srv, &server{})
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			l.Fatal(err)
		}
		go srv.Serve(lis)
		defer srv.Stop()
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		for i, n := range []int{200, 1, 1} {
			conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(trusted, "example.com")))
			if err != nil {
				l.Fatal(err)
			}
			defer conn.Close()
			open(l, ctx, feedv1.NewFeedServiceClient(conn), n)
			if got := int(handshakes.Load()); got != i+1 {
				l.Errorf("after %d connections there were %d handshakes", i+1, got)
			}
			l.Logf("%d connections, the last with %d streams: %d handshakes", i+1, n, handshakes.Load())
		}
	})
}

// The credit of the connection comes back on arrival, that of a stream when it
// is read (internal/transport/http2_client.go, handleData).
func TestStalledStreamsStallNoNeighbour(t *testing.T) {
	const stalled, events = 20, 2
	lab.Run(t, func(l *lab.Lab) {
		start := time.Now()
		var taken atomic.Int64 // by Send, of the stalled
		even := sendsAt(start, events)
		client, _ := l.Connect(feed{handle: func(topic string, stream watchServer) error {
			if id, _ := strconv.Atoi(topic); id >= stalled {
				return even(topic, stream)
			}
			body := strings.Repeat("x", 1016) // 1 KiB with 3 B of its field and 5 B of gRPC
			for stream.Send(&feedv1.Event{Body: body}) == nil {
				taken.Add(1)
			}
			return stream.Context().Err()
		}})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		all := open(l, ctx, client, many)
		for i := range events {
			for _, stream := range all[stalled:] {
				ev, err := stream.Recv()
				late := time.Since(start.Add(time.Duration(i+1) * time.Second))
				if err != nil || ev.GetId() != strconv.Itoa(i+1) || late != lab.Latency {
					l.Fatalf("beside %d stalled streams one got event %q and %v, %v after it was sent", stalled, ev.GetId(), err, late)
				}
			}
		}
		if n := taken.Load(); n != 128*stalled {
			l.Errorf("Send took %d events for %d stalled streams, want 128 each", n, stalled)
		}
		l.Logf("%d streams stall after %d events each; %d others get %d of %d, each %v after it was sent", stalled, taken.Load()/stalled, many-stalled, events, events, lab.Latency)
	})
}

// What is lost on the way is sent again, and TCP hands over nothing that comes
// behind it before it is there. The black hole is such a loss, of 200 ms.
func TestALossHoldsUpEveryStream(t *testing.T) {
	const n = 100
	lab.Run(t, func(l *lab.Lab) {
		start := time.Now()
		client, link := l.Connect(feed{handle: func(topic string, stream watchServer) error {
			id, _ := strconv.Atoi(topic)
			return sendsAt(start.Add(time.Duration(id)*time.Millisecond), 1)(topic, stream)
		}})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		all := open(l, ctx, client, n)
		time.Sleep(time.Until(start.Add(time.Second - time.Microsecond))) // before the first event
		link.Blackhole()
		time.AfterFunc(200*time.Millisecond, link.Heal)
		for i, stream := range all {
			_, err := stream.Recv()
			if at := time.Since(start); err != nil || at != 1200*time.Millisecond-time.Microsecond+lab.Latency {
				l.Fatalf("the event of stream %d came at %v, with %v", i, at, err)
			}
		}
		l.Logf("events were sent for 100 ms; after a loss of 200 ms all %d came at %v", n, time.Since(start))
	})
}

func TestOneEndReachesEveryStream(t *testing.T) {
	for _, end := range []struct {
		what string
		do   func(*lab.Link, *grpc.Server, *grpc.ClientConn)
		want codes.Code
		late time.Duration
		n    int
	}{
		{"the network is cut", func(link *lab.Link, _ *grpc.Server, _ *grpc.ClientConn) { link.Cut() }, codes.Unavailable, 0, many},
		{"the server stops", func(_ *lab.Link, srv *grpc.Server, _ *grpc.ClientConn) { srv.Stop() }, codes.Unavailable, lab.Latency, 100},
		{"the client closes its connection", func(_ *lab.Link, _ *grpc.Server, conn *grpc.ClientConn) { conn.Close() }, codes.Canceled, 0, 100},
	} {
		lab.Run(t, func(l *lab.Lab) {
			var ended atomic.Int64
			link := l.NewLink()
			srv := link.Serve(feed{handle: func(_ string, stream watchServer) error {
				defer ended.Add(1)
				return untilGone(stream)
			}})
			conn := link.Dial()
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			all := open(l, ctx, feedv1.NewFeedServiceClient(conn), end.n)
			time.Sleep(time.Second)
			began := time.Now()
			end.do(link, srv, conn)
			for i, stream := range all {
				_, err := stream.Recv()
				if late := time.Since(began); status.Code(err) != end.want || late != end.late {
					l.Fatalf("%s: stream %d ends with %v after %v, want %v after %v", end.what, i, err, late, end.want, end.late)
				}
			}
			time.Sleep(2 * lab.Latency)
			if n := ended.Load(); n != int64(end.n) {
				l.Errorf("%s: %d handlers have ended, want %d", end.what, n, end.n)
			}
			l.Logf("%s: %d streams end with %v, %v later, and %d handlers", end.what, len(all), end.want, end.late, ended.Load())
		})
	}
}

// One stream is cancelled by its client, one fails, one is ended by its server.
func TestAStreamEndsAlone(t *testing.T) {
	const many = 200
	lab.Run(t, func(l *lab.Lab) {
		start := time.Now()
		sends := sendsAt(start, 1)
		client, _ := l.Connect(feed{handle: func(topic string, stream watchServer) error {
			switch topic {
			case "1":
				return status.Error(codes.Internal, "broken")
			case "2":
				return nil
			}
			return sends(topic, stream)
		}})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		one, leave := context.WithCancel(ctx)
		defer leave()
		cancelled := open(l, one, client, 1)[0]
		all := open(l, ctx, client, many)
		leave()
		var ends []string
		for _, stream := range []watchClient{cancelled, all[1], all[2]} {
			_, err := stream.Recv()
			ends = append(ends, err.Error())
		}
		if want := "rpc error: code = Canceled desc = context canceled; rpc error: code = Internal desc = broken; EOF"; strings.Join(ends, "; ") != want {
			l.Errorf("three streams end with %q, want %s", ends, want)
		}
		got := 0
		for i, stream := range all {
			if _, err := stream.Recv(); err == nil {
				got++
			} else if i != 1 && i != 2 {
				l.Fatalf("stream %d ends with %v", i, err)
			}
		}
		if got != many-2 {
			l.Errorf("beside three that ended the others got %d events, want %d", got, many-2)
		}
		l.Logf("three end (%s), and the other %d get %d events", strings.Join(ends, "; "), many-2, got)
	})
}

// How many streams a connection may carry the server says; its default is no
// limit. Chapter 26 is about the wait.
func TestALimitMakesWatchWait(t *testing.T) {
	const many = 300
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(feed{handle: func(_ string, stream watchServer) error { return untilGone(stream) }}, grpc.MaxConcurrentStreams(100))
		client := feedv1.NewFeedServiceClient(link.Dial())
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		first, leave := context.WithCancel(ctx)
		defer leave()
		open(l, first, client, 1)
		var opened atomic.Int64
		for range many {
			go func() {
				if _, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "1"}); err == nil {
					opened.Add(1)
				}
			}()
		}
		time.Sleep(time.Hour)
		before := opened.Load()
		leave()
		time.Sleep(time.Second)
		if after := opened.Load(); before != 99 || after != 100 {
			l.Errorf("beside one stream %d were open after an hour, and %d when that one had ended, want 99 and 100", before, after)
		}
		l.Logf("the server allows 100: beside one stream %d of %d are open after an hour; when it has ended, %d", before, many, opened.Load())
	}, lab.Lasts(2*time.Hour))
}

// Who finds no worker free gets a goroutine (server.go, serveStreams).
func TestStreamWorkersAreNoLimit(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(feed{handle: func(_ string, stream watchServer) error { return untilGone(stream) }}, grpc.NumStreamWorkers(2))
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		open(l, ctx, feedv1.NewFeedServiceClient(link.Dial()), 10)
		workers, handlers := goroutines("(*Server).serverWorker"), goroutines("_FeedService_Watch_Handler")
		if workers != 2 || handlers != 10 {
			l.Errorf("10 streams: %d workers and %d goroutines in a handler, want 2 and 10", workers, handlers)
		}
		l.Logf("10 streams and %d workers: %d goroutines are in a handler", workers, handlers)
	})
}

// Three streams, opened 1 ms apart. The ladder does not name their frames; numbered does.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		topics := []string{"deploys", "alerts", "builds"}
		link := l.NewLink()
		link.Serve(feed{late: true, handle: func(topic string, stream watchServer) error {
			for id, pause := range []time.Duration{2, 3, 5} {
				time.Sleep(pause * time.Millisecond)
				if id == 2 && topic == "deploys" {
					return nil
				}
				if err := stream.Send(&feedv1.Event{Id: strconv.Itoa(id + 1), Topic: topic}); err != nil {
					return err
				}
			}
			return untilGone(stream)
		}})
		client := feedv1.NewFeedServiceClient(link.Dial())
		var leave []context.CancelFunc
		for _, topic := range topics {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			leave = append(leave, cancel)
			if _, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}); err != nil {
				l.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(6 * time.Millisecond)
		leave[1]()
		time.Sleep(time.Second)
		lab.Golden(t, "wire.txt", numbered(link))
	})
}

// numbered is the ladder with the number of each frame's stream.
func numbered(link *lab.Link) string {
	lines := strings.Split(link.Ladder(), "\n")
	lines[0] = "stream" + lines[0][6:]
	for i, f := range link.Frames() {
		lines[i+1] = fmt.Sprintf("%-3d", f.Stream) + lines[i+1][3:]
	}
	return strings.Join(lines, "\n")
}
