package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// open opens an upload that ends with the test.
func open(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient) uploadClient {
	l.Helper()
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		l.Fatal(err)
	}
	return stream
}

// flood sends until Send returns an error, which is when the stream has ended:
// of events with 1,000 bytes Send takes on 129, on a new connection, and then
// waits.
func flood(stream uploadClient) (sent int, err error) {
	ev := events(1, 1000)[0]
	for ; ; sent++ {
		if err := stream.Send(ev); err != nil {
			return sent, err
		}
	}
}

// answer is what CloseAndRecv returned, in a word or two.
func answer(receipt *feedv1.UploadResult, err error) string {
	if err != nil {
		return status.Code(err).String()
	}
	return fmt.Sprintf("a receipt for %d", receipt.GetReceived())
}

// onTheWire counts the events that left the client whole.
func onTheWire(link *lab.Link) (n int) {
	for _, f := range link.Frames() {
		n += strings.Count(f.Text, "Event{")
	}
	return n
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows. The handlers take 1 ms and the client
// an event each 2 ms.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		ends := []func(uploadServer) error{rejectThird, takeThree}
		link.Serve(server{upload: func(stream uploadServer) error {
			end := ends[0]
			ends = ends[1:]
			return end(slowServer{stream})
		}})
		client := notedClient{feedv1.NewFeedServiceClient(link.Dial()), link}
		for range 2 {
			upload(l.Context(), client, events(100, 4))
			time.Sleep(4 * time.Millisecond)
		}
		lab.Golden(t, "wire.txt", link.Ladder())
	})
}

// slowServer takes a millisecond for the third event.
type slowServer struct{ uploadServer }

func (s slowServer) Recv() (*feedv1.Event, error) {
	ev, err := s.uploadServer.Recv()
	if ev.GetId() == "3" {
		time.Sleep(time.Millisecond)
	}
	return ev, err
}

// notedClient says on the ladder what its streams return.
type notedClient struct {
	feedv1.FeedServiceClient
	link *lab.Link
}

func (c notedClient) UploadEvents(ctx context.Context, opts ...grpc.CallOption) (uploadClient, error) {
	stream, err := c.FeedServiceClient.UploadEvents(ctx, opts...)
	return notedStream{stream, c.link}, err
}

type notedStream struct {
	uploadClient
	link *lab.Link
}

func (s notedStream) Send(ev *feedv1.Event) error {
	err := s.uploadClient.Send(ev)
	if err != nil {
		s.link.Note(lab.Client, "Send: %v", err)
	} else {
		time.Sleep(2 * time.Millisecond)
	}
	return err
}

func (s notedStream) CloseAndRecv() (*feedv1.UploadResult, error) {
	receipt, err := s.uploadClient.CloseAndRecv()
	s.link.Note(lab.Client, "CloseAndRecv: %s", answer(receipt, err))
	return receipt, err
}

// Eight ways in which a stream ends while its client sends, in the lab and over
// loopback TCP.
func TestEveryEndingIsTheSameEOF(t *testing.T) {
	type scene struct {
		cancel func()
		conn   *grpc.ClientConn
		srv    *grpc.Server
		link   *lab.Link
	}
	for _, tt := range []struct {
		name   string
		upload func(uploadServer) error // nil: one that stays
		end    func(scene)
		want   string
	}{
		{"the server rejects", rejectThird, nil, "PermissionDenied"},
		{"the server has enough", takeThree, nil, "a receipt for 3"},
		{"the server forgets the receipt", func(stream uploadServer) error { return receive(stream, 3) }, nil, "Internal"},
		{"the server stops", nil, func(s scene) { s.srv.Stop() }, "Unavailable"},
		{"the network is cut", nil, func(s scene) { s.link.Cut() }, "Unavailable"},
		{"the client cancels", nil, func(s scene) { s.cancel() }, "Canceled"},
		{"the deadline passes", nil, func(scene) {}, "DeadlineExceeded"},
		{"the client closes its connection", nil, func(s scene) { s.conn.Close() }, "Canceled"},
	} {
		body := func(l *lab.Lab) {
			third := make(chan bool, 1)
			s := scene{link: l.NewLink()}
			s.srv = s.link.Serve(server{upload: func(stream uploadServer) error {
				if tt.upload != nil {
					return tt.upload(stream)
				}
				receive(stream, 3)
				third <- true
				<-stream.Context().Done()
				return stream.Context().Err()
			}})
			s.conn = s.link.Dial()
			ctx := l.Context()
			s.conn.Connect() // or the deadline may pass before there is a stream
			for is := s.conn.GetState(); is != connectivity.Ready; is = s.conn.GetState() {
				s.conn.WaitForStateChange(ctx, is)
			}
			timeout := time.Hour
			if tt.want == "DeadlineExceeded" {
				timeout = 50 * time.Millisecond
			}
			var stream uploadClient
			var err error
			for {
				ctx, s.cancel = context.WithTimeout(l.Context(), timeout)
				stream, err = feedv1.NewFeedServiceClient(s.conn).UploadEvents(ctx)
				if status.Code(err) != codes.DeadlineExceeded {
					break
				}
				s.cancel() // in real time a busy machine can be too slow for the deadline
				timeout *= 2
			}
			defer s.cancel()
			if err != nil {
				l.Fatal(err)
			}
			if tt.upload == nil {
				go func() { <-third; tt.end(s) }()
			}
			_, sent := flood(stream)
			received := answer(stream.CloseAndRecv())
			if sent != io.EOF || received != tt.want {
				l.Errorf("%s: Send returned %v and CloseAndRecv %s, want io.EOF and %s", tt.name, sent, received, tt.want)
			}
			l.Logf("%s: Send %v, CloseAndRecv %s", tt.name, sent, received)
		}
		t.Run("lab/"+tt.name, func(t *testing.T) { lab.Run(t, body) })
		t.Run("TCP/"+tt.name, func(t *testing.T) { lab.OverTCP(t, body) })
	}
}

// The client sends an event each millisecond, and the server rejects the third
// as soon as it is there. For the plot.
func TestSendReturnsNilForARoundTrip(t *testing.T) {
	var trips, small, large, wire []string
	for ms := 20; ms <= 200; ms += 20 {
		trips = append(trips, fmt.Sprint(ms))
		for _, size := range []int{10, 1000} {
			lab.Run(t, func(l *lab.Lab) {
				// Off the grid of the Sends.
				oneWay := time.Duration(ms)*time.Millisecond/2 + 137*time.Microsecond
				client, link := l.Connect(server{upload: rejectThird}, lab.WithLatency(oneWay))
				stream := open(l.Context(), l, client)
				start := time.Now()
				sent := 0
				for ; stream.Send(events(1, size)[0]) == nil; sent++ {
					time.Sleep(time.Millisecond)
				}
				took, left := time.Since(start), onTheWire(link)
				stream.CloseAndRecv()
				want, wantLeft := 3+ms, 3+ms // events 1 to 3, and one each millisecond of a round trip
				if size == 1000 {
					want, wantLeft = min(want, 129), min(wantLeft, 64) // what is taken on, what the window lets out
				}
				if sent != want || left != wantLeft {
					l.Errorf("round trip %v, bodies of %d B: %d Sends returned nil and %d events left, want %d and %d",
						2*oneWay, size, sent, left, want, wantLeft)
				}
				l.Logf("round trip %v, bodies of %d B: in %v %d Sends returned nil, %d events left, 3 were read",
					2*oneWay, size, took, sent, left)
				if size == 10 {
					small = append(small, fmt.Sprint(sent))
				} else {
					large, wire = append(large, fmt.Sprint(sent)), append(wire, fmt.Sprint(left))
				}
			})
		}
	}
	lab.Golden(t, "sends.mmd", fmt.Sprintf(`xychart-beta
    title "Sends that return nil when the third event is rejected"
    x-axis "round trip, ms" [%s]
    y-axis "Sends" 0 --> 210
    line [%s]
    line [%s]
    line [%s]
`, strings.Join(trips, ", "), strings.Join(small, ", "), strings.Join(large, ", "), strings.Join(wire, ", ")))
}

// Two servers that end an upload before they have heard all of it, and what
// CloseAndRecv then says.
var early = []struct {
	what   string
	upload func(uploadServer) error
	want   string
}{
	{"rejected", rejectThird, "PermissionDenied"},
	{"ended with OK", takeThree, "a receipt for 3"},
}

func TestTheEOFHidesARejectionAndAReceipt(t *testing.T) {
	for _, tt := range early {
		lab.Run(t, func(l *lab.Lab) {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			all := events(1000, 1000)
			// A server for each: they begin with the same windows.
			client := func() feedv1.FeedServiceClient { c, _ := l.Connect(server{upload: tt.upload}); return c }
			sent, returned := uploadReturningEOF(ctx, client(), all)
			if sent != 129 || returned != io.EOF {
				l.Errorf("uploadReturningEOF returned %d, %v, want 129 and io.EOF", sent, returned)
			}
			sent, taken := uploadTakingEOFForTheEnd(ctx, client(), all)
			if sent != 129 || taken != nil {
				l.Errorf("uploadTakingEOFForTheEnd returned %d, %v, want 129 and no error", sent, taken)
			}
			stored, sent, err := upload(ctx, client(), all)
			got := answer(&feedv1.UploadResult{Received: stored}, err)
			if sent != 129 || got != tt.want {
				l.Errorf("upload returned %d and %s, want 129 and %s", sent, got, tt.want)
			}
			l.Logf("129 of 1,000 sent, and the stream is "+tt.what+"; EOF returned: error %v; EOF taken for the end: error %v; asked: %s", returned, taken, got)
		})
	}
}

func TestTheEOFLeavesTheStreamOpen(t *testing.T) {
	for _, tt := range early {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(server{upload: tt.upload})
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			uploadReturningEOF(ctx, client, events(1000, 1000))
			uploadTakingEOFForTheEnd(ctx, client, events(1000, 1000))
			time.Sleep(24 * time.Hour)
			leaks := strings.Join(l.Leaks(), "\n")
			if !strings.Contains(leaks, "2 of 2 RPCs never ended") || strings.Contains(leaks, "handler") {
				l.Errorf("%s: after a day the lab finds %q, want two streams and no handler", tt.what, leaks)
			}
			cancel()
			upload(l.Context(), client, events(1000, 1000))
			if left := l.Leaks(); len(left) > 0 {
				l.Errorf("%s: after upload the lab finds %q", tt.what, left)
			}
			l.Logf("%s; after a day:\n%s", tt.what, leaks)
		}, lab.Lasts(25*time.Hour))
	}
}

// counter is a stats handler that counts how many RPCs began and ended.
type counter struct{ began, ended int }

func (c *counter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *counter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *counter) HandleConn(context.Context, stats.ConnStats)                       {}
func (c *counter) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s.(type) {
	case *stats.Begin:
		c.began++
	case *stats.End:
		c.ended++
	}
}

// A Send that meets a status other than OK ends the attempt, because another
// one might be made (stream.go, (*clientStream).retryLocked). The stream goes
// on. With more sent than MaxRetryRPCBufferSize, 256 KB if not set, there will
// be no other attempt (bufferForRetryLocked), and this one does not end.
func TestAStatsHandlerMissesARejectedStream(t *testing.T) {
	for _, tt := range []struct {
		what   string
		upload func(uploadServer) error
		buffer int
		want   counter
	}{
		{"rejected", rejectThird, 256 << 10, counter{began: 1, ended: 1}},
		{"rejected, with more sent than could be sent again", rejectThird, 100 << 10, counter{began: 1, ended: 0}},
		{"ended with OK", takeThree, 256 << 10, counter{began: 1, ended: 0}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			link := l.NewLink()
			link.Serve(server{upload: tt.upload})
			var seen counter
			client := feedv1.NewFeedServiceClient(link.Dial(grpc.WithStatsHandler(&seen),
				grpc.WithDefaultCallOptions(grpc.MaxRetryRPCBufferSize(tt.buffer))))
			ctx, cancel := context.WithCancel(l.Context())
			uploadReturningEOF(ctx, client, events(1000, 1000))
			leaks := strings.Join(l.Leaks(), "; ")
			if seen != tt.want || !strings.Contains(leaks, "1 of 1 RPCs never ended") {
				l.Errorf("%s: the stats handler counts %+v and the lab finds %q, want %+v and an open stream", tt.what, seen, leaks, tt.want)
			}
			l.Logf("%s: the stats handler says began %d, ended %d; the lab finds %s", tt.what, seen.began, seen.ended, leaks)
			cancel()
		})
	}
}

func TestSendSaysEOFForEver(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(server{upload: rejectThird})
		stream := open(l.Context(), l, client)
		flood(stream)
		time.Sleep(24 * time.Hour)
		before := onTheWire(link)
		for range 1000 {
			if err := stream.Send(events(1, 1)[0]); err != io.EOF {
				l.Fatalf("a day later Send returned %v, want io.EOF", err)
			}
		}
		time.Sleep(time.Minute)
		if more := onTheWire(link) - before; more != 0 {
			l.Errorf("1,000 more Sends put %d events on the wire, want none", more)
		}
		if got := answer(stream.CloseAndRecv()); got != "PermissionDenied" {
			l.Errorf("CloseAndRecv returned %s, want PermissionDenied", got)
		}
		after := stream.Send(events(1, 1)[0])
		if status.Code(after) != codes.Internal {
			l.Errorf("after CloseAndRecv Send returned %v, want Internal", after)
		}
		l.Logf("1,000 Sends a day later: EOF, nothing on the wire, and the status is still there; after CloseAndRecv: %v", after)
	}, lab.Lasts(25*time.Hour))
}

func TestAWaitingSendWakesWithTheEOF(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{upload: func(uploadServer) error {
			time.Sleep(time.Hour)
			return status.Error(codes.PermissionDenied, "")
		}})
		stream := open(l.Context(), l, client)
		start := time.Now()
		sent, err := flood(stream)
		took := time.Since(start)
		if sent != 129 || err != io.EOF || took != time.Hour+2*lab.Latency {
			l.Errorf("%d Sends returned nil and the next %v after %v, want 129, and io.EOF after an hour and a round trip", sent, err, took)
		}
		stream.CloseAndRecv()
		l.Logf("%d Sends returned nil, the next waited and returned %v after %v", sent, err, took)
	}, lab.Lasts(2*time.Hour))
}

// CloseAndRecv half-closes, so a client with more to send cannot ask with it.
// Where a goroutine is in Recv the end is seen at once.
func TestAQuietClientLearnsNothing(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{upload: rejectThird})
		stream := open(l.Context(), l, client)
		if sent, err := sendAll(stream, events(3, 10)); sent != 3 || err != nil {
			l.Errorf("%d Sends returned nil and then %v, want 3 and no error", sent, err)
		}
		time.Sleep(24 * time.Hour)
		ctxErr := stream.Context().Err()
		err := stream.Send(events(1, 10)[0])
		if ctxErr != nil || err != io.EOF {
			l.Errorf("a day later the stream's context says %v and Send %v, want nil and io.EOF", ctxErr, err)
		}
		l.Logf("a day after the rejection: stream.Context().Err() %v, then Send: %v, CloseAndRecv: %s", ctxErr, err, answer(stream.CloseAndRecv()))
	}, lab.Lasts(25*time.Hour))
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(chatRoom{})
		stream, err := client.Chat(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		stream.Send(&feedv1.ChatMessage{})
		start := time.Now()
		_, err = stream.Recv()
		if took := time.Since(start); took != 2*lab.Latency || status.Code(err) != codes.PermissionDenied {
			l.Errorf("Recv returned %v after %v, want PermissionDenied after a round trip", err, took)
		}
		l.Logf("Recv of a bidirectional stream: %v after %v", err, time.Since(start))
	})
}

// chatRoom rejects the first line.
type chatRoom struct {
	feedv1.UnimplementedFeedServiceServer
}

func (chatRoom) Chat(stream grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	return status.Error(codes.PermissionDenied, "")
}

// Two events that Send refuses on the client's side, with a limit of 1,000 B.
var refused = []struct {
	what  string
	event *feedv1.Event
	want  codes.Code
}{
	{"an id that is not UTF-8", &feedv1.Event{Id: "\xff"}, codes.Internal},
	{"more than MaxCallSendMsgSize", events(1, 1000)[0], codes.ResourceExhausted},
}

var limit = grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1000))

func TestWhatSendRefusesIsNoEOF(t *testing.T) {
	for _, tt := range refused {
		lab.Run(t, func(l *lab.Lab) {
			ended := make(chan error, 2)
			link := l.NewLink()
			link.Serve(server{upload: func(stream uploadServer) error {
				err := receive(stream, 3)
				ended <- err
				return err
			}})
			client := feedv1.NewFeedServiceClient(link.Dial(limit))
			_, sent, err := upload(l.Context(), client, append(events(2, 10), tt.event))
			if sent != 2 || status.Code(err) != tt.want {
				l.Errorf("%s: upload returned %d sent and %v, want 2 and %v", tt.what, sent, err, tt.want)
			}
			// And without a cancel or a CloseAndRecv.
			link.Mark()
			stream := open(l.Context(), l, client)
			sendAll(stream, append(events(2, 10), tt.event))
			if leaks := l.Leaks(); len(leaks) > 0 {
				l.Errorf("%s: the lab finds %q, want that Send has ended the stream", tt.what, leaks)
			}
			for range 2 {
				if err := <-ended; status.Code(err) != codes.Canceled {
					l.Errorf("%s: the handler's Recv returned %v, want Canceled", tt.what, err)
				}
			}
			frames := link.Frames()
			if last := frames[len(frames)-1]; last.Type != "RST_STREAM" || last.Text != "CANCEL" {
				l.Errorf("%s: the last frame is %s %s, want RST_STREAM CANCEL", tt.what, last.Type, last.Text)
			}
			next, reason := stream.Send(events(1, 10)[0]), answer(stream.CloseAndRecv())
			if next != io.EOF || reason != tt.want.String() {
				l.Errorf("%s: the next Send returned %v and CloseAndRecv %s, want io.EOF and %v", tt.what, next, reason, tt.want)
			}
			l.Logf("%s: %v; the stream is gone, the next Send says %v and CloseAndRecv %s", tt.what, err, next, reason)
		})
	}
}

// Send looks at the event before it looks at the stream (stream.go,
// (*clientStream).SendMsg), and its reason is not the server's.
func TestWhatSendRefusesHidesTheServersEnd(t *testing.T) {
	for _, tt := range refused {
		for _, end := range early {
			lab.Run(t, func(l *lab.Lab) {
				link := l.NewLink()
				link.Serve(server{upload: end.upload})
				stream := open(l.Context(), l, feedv1.NewFeedServiceClient(link.Dial(limit)))
				sendAll(stream, events(3, 10))
				time.Sleep(time.Second) // the server's end is here
				err := stream.Send(tt.event)
				got := answer(stream.CloseAndRecv())
				if status.Code(err) != tt.want || got != end.want {
					l.Errorf("%s, %s: Send returned %v and CloseAndRecv %s, want %v and %s", end.what, tt.what, err, got, tt.want, end.want)
				}
				l.Logf("%s, and then %s: Send %v, CloseAndRecv %s", end.what, tt.what, status.Code(err), got)
			})
		}
	}
}
