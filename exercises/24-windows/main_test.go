package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// These are what README.md says.
const (
	rtt   = 200 * time.Millisecond
	rate  = 8_000_000  // bytes a second
	offer = 25_000_000 // bytes a second that a sender has
	most  = 4 << 20    // bytes that a stalled stream may hold
	large = 64 << 10   // the largest body
)

// event makes an event with a body of so many bytes, which takes wire bytes of
// a stream.
func event(body int) (ev *feedv1.Event, wire int) {
	ev = &feedv1.Event{Body: strings.Repeat("x", body)}
	return ev, proto.Size(ev) + 5
}

// A bench is a connection with the answer's options.
type bench struct {
	*lab.Lab
	*lab.Link
	*service
	client feedv1.FeedServiceClient
	ctx    context.Context
}

// with runs body on a connection with the answer's options, over which messages
// have a body of so many bytes.
func with(t *testing.T, body int, what func(*bench)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		ev, wire := event(body)
		b := &bench{Lab: l, service: &service{feed: feed{event: ev}, wire: wire}}
		b.Link = l.NewLink(lab.WithBDP(), lab.WithLatency(rtt/2))
		b.Serve(b.service, serverOptions()...)
		late := time.AfterFunc(15*time.Second, func() {
			l.Errorf("with your serverOptions and dialOptions there was no connection within 15s")
		})
		b.client = feedv1.NewFeedServiceClient(b.Dial(dialOptions()...))
		late.Stop()
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		b.ctx = ctx
		what(b)
	})
}

// A service sends downloads, and reads uploads or does not.
type service struct {
	feed
	wire   int  // of a message
	unread bool // the handler does not read its upload

	stalled atomic.Bool // the client reads no more
	got     atomic.Int64
}

func (s *service) Watch(_ *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	return s.send(stream.Send)
}

// send sends as much as the sender has: what Send held up is made good.
func (s *service) send(send func(*feedv1.Event) error) error {
	start := time.Now()
	for n := 0; ; n++ {
		due := time.Duration(n*s.wire) * time.Second / offer
		if ahead := due - time.Since(start); ahead > 5137*time.Microsecond {
			time.Sleep(ahead)
		}
		if err := send(s.event); err != nil {
			return err
		}
	}
}

func (s *service) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	if s.unread {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	for n := int32(0); ; n++ {
		_, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&feedv1.UploadResult{Received: n})
		}
		if err != nil {
			return err
		}
	}
}

// download opens a stream that the client reads as fast as it can, until it stalls.
func (b *bench) download() {
	b.Helper()
	stream, err := b.client.Watch(b.ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		b.Fatalf("with your serverOptions and dialOptions, Watch returned %v", err)
	}
	go func() {
		for !b.stalled.Load() {
			if _, err := stream.Recv(); err != nil {
				if b.ctx.Err() == nil {
					b.Errorf("with your serverOptions and dialOptions, a download of messages with a body of %d B failed: %v", len(b.event.GetBody()), err)
				}
				return
			}
			b.got.Add(1)
		}
	}()
}

// sent is how many bytes of streams a side has sent.
func (b *bench) sent(from lab.Side) (total int) {
	for _, f := range b.Frames() {
		if f.Type == "DATA" && f.From == from {
			total += f.Length
		}
	}
	return total
}

// holds fails if within a minute more has come from that side than may be held.
func (b *bench) holds(from lab.Side, where string) {
	b.Helper()
	since := time.Now()
	for wait := time.Second; wait < time.Minute; wait *= 2 {
		time.Sleep(wait)
		if held := b.sent(from) - int(b.got.Load())*b.wire; held > most {
			b.Fatalf("with your %s had %d B of the stream %v later, want at most %d: the connection's window is no bound, its credit does not wait for Recv",
				where, held, time.Since(since), most)
		}
	}
}

// From burst to burst it is a round trip: the bursts of the second to the sixth
// are counted, the first being a present.
func TestADownloadHasEightMegabytesASecond(t *testing.T) {
	for _, body := range []int{4099, 2053, 16 << 10, large} {
		with(t, body, func(b *bench) {
			b.download()
			time.Sleep(rtt)
			first := b.sent(lab.Server)
			time.Sleep(5 * rtt)
			got := b.sent(lab.Server) - first
			if got >= rate {
				return
			}
			why := ""
			switch {
			case b.estimates():
				why = "; the client's windows were still growing"
			case got/5 < 64<<10:
				why = "; that is less than 64 KiB, which a window has until it is set to more"
			}
			b.Fatalf("with your serverOptions and dialOptions, a download in messages of %d B had %.2f MB in a second, want %.2f MB: in each round trip there were %d B, want %d%s",
				b.wire, float64(got)/1e6, rate/1e6, got/5, rate/5, why)
		})
	}
}

// estimates is whether the client has raised its windows since it connected.
func (b *bench) estimates() bool {
	return slices.ContainsFunc(b.Frames(), func(f lab.Frame) bool {
		return f.From == lab.Client && f.Type == "SETTINGS" && f.Text != "ACK"
	})
}

// A fixed window holds most when nothing was read of it: the rest is credit
// that is not yet due. An estimator raises its windows while the client reads:
// it has more time.
func TestAStalledDownloadStaysWithinItsMemory(t *testing.T) {
	with(t, large, func(b *bench) {
		b.stalled.Store(true)
		b.download()
		b.holds(lab.Server, "dialOptions, a client opened a download and read nothing, and its memory")
	})
	with(t, large, func(b *bench) {
		b.download()
		start := time.Now()
		if time.Sleep(11 * rtt / 2); b.estimates() {
			time.Sleep(18 * rtt)
		}
		b.stalled.Store(true)
		reads := time.Since(start)
		b.holds(lab.Server, fmt.Sprintf("dialOptions, a client read as fast as it could for %v and then no more, and its memory", reads))
	})
}

func TestAnUnreadUploadStaysWithinItsMemory(t *testing.T) {
	with(t, large, func(b *bench) {
		b.unread = true
		stream, err := b.client.UploadEvents(b.ctx)
		if err != nil {
			b.Fatalf("with your serverOptions and dialOptions, UploadEvents returned %v", err)
		}
		go b.send(stream.Send)
		b.holds(lab.Client, "serverOptions, a handler did not read its upload, and the server's memory")
	})
}

func TestAnUploadArrives(t *testing.T) {
	with(t, large, func(b *bench) {
		const n = 16
		stream, err := b.client.UploadEvents(b.ctx)
		for i := 0; i < n && err == nil; i++ {
			err = stream.Send(b.event)
		}
		var result *feedv1.UploadResult
		if err == nil || errors.Is(err, io.EOF) {
			result, err = stream.CloseAndRecv()
		}
		if err != nil || result.GetReceived() != n {
			b.Fatalf("with your serverOptions and dialOptions, the server received %d of %d events of an upload, and the client the error %v", result.GetReceived(), n, err)
		}
	})
}
