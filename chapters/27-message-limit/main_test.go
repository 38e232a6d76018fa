package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const (
	kib = 1 << 10
	// limit is defaultServerMaxReceiveMessageSize (server.go) and
	// defaultClientMaxReceiveMessageSize (clientconn.go).
	limit = 4_194_304
)

type handler = func(putServer) error

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// A scene is a server whose handlers are written by the test, and a client.
type scene struct {
	*lab.Lab
	feedv1.UnimplementedFeedServiceServer
	link   *lab.Link
	srv    *grpc.Server
	conn   *grpc.ClientConn
	client feedv1.FeedServiceClient
	put    handler
	ended  chan error // what put returned
}

func (sc *scene) PutBlob(stream putServer) error {
	err := sc.put(stream)
	sc.ended <- err
	return err
}

// how is what a test wants otherwise.
type how struct {
	link   []lab.LinkOption
	server []grpc.ServerOption
	dial   []grpc.DialOption
}

func with(l *lab.Lab, h how, put handler, body func(*scene)) {
	sc := &scene{Lab: l, link: l.NewLink(h.link...), put: put, ended: make(chan error, 10)}
	sc.srv = sc.link.Serve(sc, h.server...)
	sc.conn = sc.link.Dial(h.dial...)
	sc.client = feedv1.NewFeedServiceClient(sc.conn)
	body(sc)
}

// play is with in the lab. There put begins when what its client sends at once
// has arrived.
func play(t *testing.T, h how, put handler, body func(*scene)) {
	t.Helper()
	late := func(stream putServer) error {
		time.Sleep(time.Millisecond)
		return put(stream)
	}
	lab.Run(t, func(l *lab.Lab) { with(l, h, late, body) })
}

func limits(o ...grpc.ServerOption) how { return how{server: o} }
func clientLimits(o ...grpc.CallOption) how {
	return how{dial: []grpc.DialOption{grpc.WithDefaultCallOptions(o...)}}
}

func (sc *scene) show(ok bool, format string, args ...any) {
	sc.Helper()
	if !ok {
		sc.Fatalf("not so: "+format, args...)
	}
	sc.Logf(format, args...)
}

func (sc *scene) must(err error) {
	sc.Helper()
	if err != nil {
		sc.Fatal(err)
	}
}

func (sc *scene) open(ctx context.Context) putClient {
	sc.Helper()
	stream, err := sc.client.PutBlob(ctx)
	sc.must(err)
	return stream
}

// sent sums the DATA of the client, and counts its frames.
func (sc *scene) sent() (payload, frames int) {
	for _, f := range sc.link.Frames() {
		if f.From == lab.Client && f.Type == "DATA" && f.Length > 0 {
			payload, frames = payload+f.Length, frames+1
		}
	}
	return payload, frames
}

// bytesFor returns so many bytes that a message with this one field has size.
func bytesFor(size int) []byte {
	data := make([]byte, size)
	for proto.Size(&feedv1.Chunk{Data: data}) > size {
		data = data[1:]
	}
	return data
}

func chunk(size int) *feedv1.Chunk          { return &feedv1.Chunk{Data: bytesFor(size)} }
func result(size int) *feedv1.PutBlobResult { return &feedv1.PutBlobResult{Sha256: bytesFor(size)} }

func newServer() *server { return &server{ended: make(chan struct{}, 100)} }

// recvAll receives to the end, and counts bytes.
func recvAll(stream putServer, heard *int) error {
	for {
		c, err := stream.Recv()
		if err != nil {
			return err
		}
		*heard += len(c.GetData())
	}
}

const tooLarge = "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (4194305 vs. 4194304)"

// halfOf reads n bytes in a millisecond, and then fails.
func halfOf(n int) func() ([]byte, error) {
	read := 0
	return func() ([]byte, error) {
		time.Sleep(time.Millisecond)
		if read++; read > 1 {
			return nil, errors.New("disk: bad sector")
		}
		return make([]byte, n), nil
	}
}

// The recording that the README shows: one byte too many, and an upload that is
// given up in two ways.
func TestTheRecordingIsFresh(t *testing.T) {
	var ladders []string
	for _, act := range []func(*scene, context.Context){
		func(sc *scene, ctx context.Context) {
			stream := sc.open(ctx)
			sc.link.Note(lab.Client, "Send of %d B returns %v", limit+1, stream.Send(chunk(limit+1)))
			_, err := stream.CloseAndRecv()
			sc.link.Note(lab.Client, "CloseAndRecv returns %v", status.Code(err))
		},
		func(sc *scene, ctx context.Context) {
			sc.link.Note(lab.Client, "leaveByCloseSend returns %q", leaveByCloseSend(ctx, sc.client, halfOf(10_000)))
		},
		func(sc *scene, ctx context.Context) {
			sc.link.Note(lab.Client, "leaveByCancel returns %q", leaveByCancel(ctx, sc.client, halfOf(10_000)))
		},
	} {
		s := newServer()
		var link *lab.Link
		h := how{server: []grpc.ServerOption{grpc.StaticConnWindowSize(limit)}} // no WINDOW_UPDATE of the connection
		play(t, h, func(stream putServer) error {
			err := s.PutBlob(stream)
			link.Note(lab.Server, "the handler returns %v, and has kept %v", status.Code(err), s.blobs())
			return err
		}, func(sc *scene) {
			link = sc.link
			ctx, cancel := context.WithCancel(sc.Context())
			defer cancel()
			link.Mark()
			act(sc, ctx)
			time.Sleep(100 * time.Millisecond)
			ladders = append(ladders, link.Ladder())
		})
	}
	for i := range ladders[1:] {
		_, ladders[i+1], _ = strings.Cut(ladders[i+1], "\n")
	}
	lab.Golden(t, "wire.txt", strings.Join(ladders, "\n"))
}

// A trial is a request and its reply, and what each call returned.
type trial struct{ send, recv, reply, receipt error }

func (sc *scene) try(client feedv1.FeedServiceClient, request, reply int, opts ...grpc.CallOption) (is trial) {
	sc.Helper()
	sc.put = func(stream putServer) error {
		if _, is.recv = stream.Recv(); is.recv == nil {
			is.reply = stream.SendAndClose(result(reply))
		}
		return is.recv
	}
	stream, err := client.PutBlob(sc.Context(), opts...)
	sc.must(err)
	if is.send = stream.Send(chunk(request)); is.send == nil {
		_, is.receipt = stream.CloseAndRecv()
	}
	<-sc.ended
	return is
}

// rpc_util.go, (*parser).recvMsg: int(length) > maxReceiveMessageSize. The
// length is that of the encoded message: with its field, without the 5 bytes
// before it. The text is the same, whoever's limit it was.
func tryLimit(sc *scene, size int) {
	want := map[bool]string{true: "<nil>", false: tooLarge}[size == limit]
	is := sc.try(sc.client, size, 10)
	sc.show(is.send == nil && fmt.Sprint(is.recv) == want && fmt.Sprint(is.receipt) == want, "a request of %d B: the client's Send returns %v, the handler's Recv %v, CloseAndRecv %v", size, is.send, is.recv, is.receipt)
	is = sc.try(sc.client, 10, size)
	sc.show(is.recv == nil && is.reply == nil && fmt.Sprint(is.receipt) == want, "a reply of %d B: the handler's Send returns %v, the client's Recv %v", size, is.reply, is.receipt)
}

func TestFourMiBPassAndOneByteMoreDoesNot(t *testing.T) {
	wide := how{ // windows for a whole message, which saves hundreds of round trips
		server: []grpc.ServerOption{grpc.StaticStreamWindowSize(2 * limit), grpc.StaticConnWindowSize(2 * limit)},
		dial:   []grpc.DialOption{grpc.WithStaticStreamWindowSize(2 * limit), grpc.WithStaticConnWindowSize(2 * limit)},
	}
	play(t, wide, nil, func(sc *scene) { tryLimit(sc, limit) })
	play(t, how{}, nil, func(sc *scene) { tryLimit(sc, limit+1) })
	if data := len(bytesFor(limit)); data != limit-5 {
		t.Fatalf("a chunk of %d B has %d B of data", limit, data)
	}
}

func TestOneByteMoreDoesNotPassOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		with(l, how{}, nil, func(sc *scene) { tryLimit(sc, limit+1) })
	})
}

// stream.go, (*serverStream).RecvMsg: its deferred function writes the status,
// whatever the handler will return, and that ends the stream.
func TestAHandlerCannotTakeTheErrorBack(t *testing.T) {
	for _, returns := range []error{nil, status.Error(codes.InvalidArgument, "use chunks")} {
		var recv, ctx, again error
		play(t, how{}, func(stream putServer) error {
			_, recv = stream.Recv()
			ctx = stream.Context().Err()
			again = stream.SendAndClose(&feedv1.PutBlobResult{})
			return returns
		}, func(sc *scene) {
			stream := sc.open(sc.Context())
			sc.must(stream.Send(chunk(limit + 1)))
			_, err := stream.CloseAndRecv()
			<-sc.ended
			ok := fmt.Sprint(recv) == tooLarge && ctx == context.Canceled && status.Code(again) == codes.Canceled && fmt.Sprint(err) == tooLarge
			sc.show(ok, "Recv has failed; the handler's context: %v, its SendAndClose: %v, it returns %v, and the client has %v", ctx, again, returns, status.Code(err))
		})
	}
}

// stream.go, (*clientStream).finish: a receiver that gives up resets the stream.
func TestAReplyTooLargeEndsTheStreamOfItsSender(t *testing.T) {
	var sent, again error
	var took time.Duration
	play(t, how{}, func(stream putServer) error {
		start := time.Now()
		sent = stream.SendMsg(result(limit + 1))
		<-stream.Context().Done()
		again = stream.SendMsg(result(10))
		took = time.Since(start)
		return nil
	}, func(sc *scene) {
		_, err := sc.open(sc.Context()).CloseAndRecv()
		<-sc.ended
		ok := fmt.Sprint(err) == tooLarge && sent == nil && took == 2*lab.Latency && status.Code(again) == codes.Canceled
		sc.show(ok, "the server's Send returns %v, the client's Recv %v; the handler's context ends %v after the Send, and the next Send returns %v", sent, err, took, again)
	})
}

// The length stands in front: a receiver needs no more to say no.
func TestOnlyAWindowOfAMessageTooLargeIsSent(t *testing.T) {
	play(t, how{}, func(stream putServer) error { return recvAll(stream, new(int)) }, func(sc *scene) {
		start := time.Now()
		stream := sc.open(sc.Context())
		sc.must(stream.Send(chunk(4 * limit)))
		_, err := stream.CloseAndRecv()
		took := time.Since(start)
		time.Sleep(time.Second)
		n, _ := sc.sent()
		sc.show(status.Code(err) == codes.ResourceExhausted && n == lab.Window && took == 2*lab.Latency+time.Millisecond, "a message of %d B: %v after %v, and %d B have been sent, the window", 4*limit, status.Code(err), took, n)
	})
}

// stream.go, SendMsg of both streams: before anything is written.
func TestALocalLimitFailsInSend(t *testing.T) {
	const text = "rpc error: code = ResourceExhausted desc = trying to send message larger than max (1001 vs. 1000)"
	var recv error
	play(t, clientLimits(grpc.MaxCallSendMsgSize(1000)), func(stream putServer) error {
		recv = recvAll(stream, new(int))
		return recv
	}, func(sc *scene) {
		stream := sc.open(sc.Context())
		sc.must(stream.Send(chunk(1000)))
		time.Sleep(time.Second)
		err := stream.Send(chunk(1001))
		<-sc.ended
		n, _ := sc.sent()
		sc.show(fmt.Sprint(err) == text && n == 1005 && status.Code(recv) == codes.Canceled, "the client's Send returns %v; of this message nothing is sent (%d B: the one before), and the handler's Recv returns %v", err, n, status.Code(recv))
	})
	play(t, limits(grpc.MaxSendMsgSize(1000)), nil, func(sc *scene) {
		is := sc.try(sc.client, 10, 1001)
		sc.show(fmt.Sprint(is.reply) == text && fmt.Sprint(is.receipt) == text, "the server's Send returns %v, and so does CloseAndRecv", is.reply)
	})
}

func TestEachLimitIsForOneSideAndOneDirection(t *testing.T) {
	for _, tt := range []struct {
		what           string
		h              how
		call           []grpc.CallOption
		request, reply codes.Code // of 1,001 B
	}{
		{"the server's MaxRecvMsgSize", limits(grpc.MaxRecvMsgSize(1000)), nil, codes.ResourceExhausted, codes.OK},
		{"the server's MaxSendMsgSize", limits(grpc.MaxSendMsgSize(1000)), nil, codes.OK, codes.ResourceExhausted},
		{"the client's MaxCallRecvMsgSize", clientLimits(grpc.MaxCallRecvMsgSize(1000)), nil, codes.OK, codes.ResourceExhausted},
		{"the client's MaxCallSendMsgSize", clientLimits(grpc.MaxCallSendMsgSize(1000)), nil, codes.ResourceExhausted, codes.OK},
		{"MaxCallRecvMsgSize, and 1,001 in the call", clientLimits(grpc.MaxCallRecvMsgSize(1000)), []grpc.CallOption{grpc.MaxCallRecvMsgSize(1001)}, codes.OK, codes.OK},
	} {
		play(t, tt.h, nil, func(sc *scene) {
			code := func(is trial) codes.Code { return status.Code(cmp.Or(is.send, is.receipt)) }
			request, reply := code(sc.try(sc.client, 1001, 1000, tt.call...)), code(sc.try(sc.client, 1000, 1001, tt.call...))
			sc.show(request == tt.request && reply == tt.reply, "%s is 1,000: a request of 1,001 B ends with %v, a reply of 1,001 B with %v", tt.what, request, reply)
		})
	}
}

// rpc_util.go: recvMsg compares what comes, decompress what it becomes.
// stream.go, SendMsg compares what goes.
func TestTheReceiverLimitsTheMessageAsItComesAndAsItIs(t *testing.T) {
	noise := make([]byte, 997) // with its field 1,000 B, which gzip makes larger
	random := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	for _, tt := range []struct {
		what string
		c    *feedv1.Chunk
		want string
	}{
		{"1,000 B of zeros", chunk(1000), ""},
		{"1,001 B of zeros", chunk(1001), "grpc: received message after decompression larger than max 1000"},
		{"1,000 B of noise", &feedv1.Chunk{Data: noise}, "grpc: received message larger than max (1028 vs. 1000)"},
	} {
		h := clientLimits(grpc.UseCompressor(gzip.Name))
		h.server = []grpc.ServerOption{grpc.MaxRecvMsgSize(1000)}
		play(t, h, newServer().PutBlob, func(sc *scene) {
			stream := sc.open(sc.Context())
			sc.must(stream.Send(tt.c))
			_, err := stream.CloseAndRecv()
			n, _ := sc.sent()
			sc.show(proto.Size(tt.c) <= 1001 && status.Convert(err).Message() == tt.want, "%s are %d B with gzip, and the server's limit is 1,000: %v", tt.what, n-5, err)
		})
	}
	play(t, clientLimits(grpc.UseCompressor(gzip.Name), grpc.MaxCallSendMsgSize(100)), newServer().PutBlob, func(sc *scene) {
		_, err := put(sc.Context(), sc.client, make([]byte, 1000), 1000)
		sc.show(err == nil, "1,000 B of zeros, and the client may send 100: %v, for it limits what it sends", err)
	})
}

// A pool counts the bytes that gRPC has taken and not given back, by side.
type pool struct {
	mem.BufferPool
	mu         sync.Mutex
	taken      map[*[]byte]taken // nil while nobody counts
	live, most [2]int
}

type taken struct {
	side  lab.Side
	bytes int
}

// counted is what gRPC takes its buffers from in this test binary.
var counted = &pool{BufferPool: mem.DefaultBufferPool()}

func init() { experimental.SetDefaultBufferPool(counted) }

// count begins at nothing, and returns the most that was taken at once before.
func (p *pool) count(taken map[*[]byte]taken) (most [2]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	most = p.most
	p.taken, p.live, p.most = taken, [2]int{}, [2]int{}
	return most
}

func (p *pool) Get(n int) *[]byte {
	b := p.BufferPool.Get(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken != nil {
		side, stack := lab.Client, string(debug.Stack())
		if strings.Contains(stack, "Unmarshal(") || strings.Contains(stack, "readDataFrame(") {
			side = lab.Server
		}
		size := cap(*b)
		if n > 1024*kib {
			size = n // a larger one may have come back to the pool before
		}
		p.taken[b] = taken{side, size}
		p.live[side] += size
		p.most[side] = max(p.most[side], p.live[side])
	}
	return b
}

func (p *pool) Put(b *[]byte) {
	p.mu.Lock()
	was := p.taken[b]
	delete(p.taken, b)
	p.live[was.side] -= was.bytes
	p.mu.Unlock()
	p.BufferPool.Put(b)
}

// held returns the most bytes that gRPC held to send and to receive while blob
// bytes went in messages with so much data.
func held(t *testing.T, blob, data int) (sender, receiver int) {
	window := int32(max(lab.Window, data+20)) // for the whole message, which saves round trips
	h := how{server: []grpc.ServerOption{experimental.BufferPool(counted), grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window)}}
	play(t, h, newServer().PutBlob, func(sc *scene) {
		counted.count(map[*[]byte]taken{})
		_, err := put(sc.Context(), sc.client, make([]byte, blob), data)
		most := counted.count(nil)
		sc.must(err)
		sender, receiver = most[lab.Client], most[lab.Server]
	})
	return sender, receiver
}

// A sender holds the encoded message until its last byte is written. A receiver
// holds its frames until the last one has come, and then also one piece that is
// made of them, to decode it (encoding/proto/proto.go, Unmarshal), unless there
// is one frame. The pool's buffers are of 256 B, 4, 16 and 32 KiB, and 1 MiB
// (mem/buffer_pool.go, defaultBufferPoolSizeExponents).
func TestMemoryGrowsWithTheMessage(t *testing.T) {
	var x, sender, receiver []string
	for _, tt := range []struct{ size, sender, receiver int }{ // in KiB
		{16, 16, 16}, {32, 32, 32 + 32}, {64, 1024, 64 + 1024}, {128, 1024, 128 + 1024},
		{256, 1024, 256 + 1024}, {512, 1024, 512 + 1024}, {1024, 1024, 1024 + 1024},
		{4096, 4096, 4096 + 4096}, // above 1 MiB a buffer is at least as large as what it holds
	} {
		data := len(bytesFor(tt.size*kib - 5)) // so that the frames are full
		s, r := held(t, data, data)
		s, r = (s+kib-1)/kib, (r+kib-1)/kib
		if s != tt.sender || r != tt.receiver {
			t.Fatalf("a message of %d KiB: its sender holds %d KiB, its receiver %d, want %d and %d", tt.size, s, r, tt.sender, tt.receiver)
		}
		t.Logf("a message of %4d KiB: beside the message itself its sender holds %4d KiB, its receiver %4d", tt.size, s, r)
		if tt.size > 1024 {
			continue // off the chart
		}
		x, sender, receiver = append(x, fmt.Sprint(tt.size)), append(sender, fmt.Sprint(s)), append(receiver, fmt.Sprint(r))
	}
	plot(t, "memory.mmd", "one message (KiB)", x, "KiB in gRPC's buffers", 2200, receiver, sender)
}

// plot draws the first of ys as bars, and the others as lines.
func plot(t *testing.T, file, xAxis string, x []string, yAxis string, top int, ys ...[]string) {
	t.Helper()
	chart := fmt.Sprintf("xychart-beta\n    x-axis %q [%s]\n    y-axis %q 0 --> %d\n", xAxis, strings.Join(x, ", "), yAxis, top)
	for i, y := range ys {
		chart += fmt.Sprintf("    %s [%s]\n", []string{"bar", "line"}[i], strings.Join(y, ", "))
	}
	lab.Golden(t, file, chart)
}

func TestInChunksMemoryDoesNotGrowWithTheBlob(t *testing.T) {
	for _, blob := range []int{512, 1024} {
		s, r := held(t, blob*kib, chunkSize)
		if most := 512 * kib; s > most || r > most {
			t.Errorf("%d KiB in chunks of %d B: the sender holds %d B, the receiver %d, want %d at most", blob, chunkSize, s, r, most)
		}
		t.Logf("%d KiB in chunks of %d B: the sender holds %d KiB, the receiver %d", blob, chunkSize, s/kib, r/kib)
	}
}

// A message is nothing to its receiver until it is whole.
func TestNothingOfAMessageIsSeenBeforeItsEnd(t *testing.T) {
	for _, tt := range []struct {
		data     int
		ends     time.Duration // the client's deadline
		from, to time.Duration // the first message is there
		heard    int           // at least
	}{
		{1024 * kib, time.Minute, 1040 * time.Millisecond, 1060 * time.Millisecond, 1024 * kib},
		{1024 * kib, time.Second, 0, 0, 0},
		{chunkSize, time.Second, 0, 100 * time.Millisecond, 900_000},
	} {
		var first time.Duration
		var start time.Time
		heard := 0
		play(t, how{link: []lab.LinkOption{lab.WithBandwidth(1_000_000)}}, func(stream putServer) error {
			c, err := stream.Recv()
			if err != nil {
				return err
			}
			first, heard = time.Since(start), len(c.GetData())
			return recvAll(stream, &heard)
		}, func(sc *scene) {
			start = time.Now()
			ctx, cancel := context.WithTimeout(sc.Context(), tt.ends+time.Microsecond/2)
			defer cancel()
			put(ctx, sc.client, make([]byte, 1024*kib), tt.data)
			<-sc.ended
			ok := first >= tt.from && first <= tt.to && heard >= tt.heard && (heard > 0) == (tt.heard > 0)
			sc.show(ok, "1 MiB at 1 MB/s, in messages of %d B, for %v: the first is there after %v (0s: never), the handler has had %d B", tt.data, tt.ends, first.Round(time.Millisecond), heard)
		})
	}
}

func TestARejectionComesAfterAMessage(t *testing.T) {
	for _, tt := range []struct{ data, least, most int }{{1024 * kib, 1024*kib + 9, 1024*kib + 9}, {chunkSize, chunkSize + 8, 128 * kib}} {
		play(t, how{}, func(stream putServer) error {
			if _, err := stream.Recv(); err != nil {
				return err
			}
			return status.Error(codes.PermissionDenied, "not yours")
		}, func(sc *scene) {
			_, err := put(sc.Context(), sc.client, make([]byte, 1024*kib), tt.data)
			time.Sleep(time.Second)
			n, _ := sc.sent()
			sc.show(status.Code(err) == codes.PermissionDenied && n >= tt.least && n <= tt.most, "1 MiB in messages of %d B, and the server rejects the first: %d B have been sent", tt.data, n)
		})
	}
}

// internal/transport/controlbuf.go, processData: a frame is of one message, and
// of 16 KiB at most.
func TestOverheadFallsWithTheChunk(t *testing.T) {
	var x, y []string
	for _, size := range []int{64, 256, kib, 4 * kib, 16 * kib, chunkSize, 64 * kib, 256 * kib} {
		h := how{server: []grpc.ServerOption{grpc.StaticStreamWindowSize(limit), grpc.StaticConnWindowSize(limit)}}
		play(t, h, newServer().PutBlob, func(sc *scene) {
			blob := min(256*kib, 64*size) / size * size
			_, err := put(sc.Context(), sc.client, make([]byte, blob), size)
			sc.must(err)
			n, frames := sc.sent()
			over := n + 9*frames - blob
			percent := fmt.Sprintf("%.2f", 100*float64(over)/float64(blob))
			message := proto.Size(&feedv1.Chunk{Data: make([]byte, size)}) + 5
			want := blob / size * ((message + 16383) / 16384)
			sc.show(frames == want && n == blob/size*message, "%d B in chunks of %6d B: %4d frames, %5d B more, %s %%", blob, size, frames, over, percent)
			x, y = append(x, fmt.Sprint(size)), append(y, percent)
		})
	}
	plot(t, "overhead.mmd", "bytes of data a chunk", x, "percent more on the wire", 26, y)
}

// Only io.EOF says that the client has closed its side.
func TestOnlyTheHalfCloseSaysComplete(t *testing.T) {
	for _, tt := range []struct {
		what string
		end  func(sc *scene, stream putClient, cancel func())
		want string
	}{
		{"half-closes", func(_ *scene, stream putClient, _ func()) { stream.CloseSend() }, "OK [60000]"},
		{"cancels", func(_ *scene, _ putClient, cancel func()) { cancel() }, "Canceled []"},
		{"lets its deadline pass", func(*scene, putClient, func()) { time.Sleep(time.Minute) }, "Canceled or DeadlineExceeded []"},
		{"closes its connection", func(sc *scene, _ putClient, _ func()) { sc.conn.Close() }, "Canceled []"},
		{"is cut off", func(sc *scene, _ putClient, _ func()) { sc.link.Cut() }, "Canceled []"},
		{"is there, and the server stops", func(sc *scene, _ putClient, _ func()) { sc.srv.Stop() }, "Canceled []"},
	} {
		s := newServer()
		play(t, how{}, s.PutBlob, func(sc *scene) {
			ctx, cancel := context.WithTimeout(sc.Context(), time.Minute+time.Microsecond/2)
			defer cancel()
			stream := sc.open(ctx)
			for range 3 {
				sc.must(stream.Send(&feedv1.Chunk{Data: make([]byte, 20_000)}))
			}
			time.Sleep(time.Second)
			tt.end(sc, stream, cancel)
			ended := <-sc.ended
			code, kept, _ := strings.Cut(tt.want, " [")
			ok := slices.Contains(strings.Split(code, " or "), status.Code(ended).String()) && fmt.Sprint(s.blobs()) == "["+kept
			sc.show(ok, "3 chunks of 20,000 B, then the client %s: the handler returns %v, and has kept %v", tt.what, status.Code(ended), s.blobs())
		})
	}
}

// What serverOptions and dialOptions say of themselves.
func TestTheOptionsFailWhereTheySay(t *testing.T) {
	const most = 256 * kib
	dial := append(dialOptions(), grpc.WithStaticStreamWindowSize(2*limit), grpc.WithStaticConnWindowSize(2*limit))
	play(t, how{server: serverOptions(), dial: dial}, nil, func(sc *scene) {
		sc.link.Mark()
		plain := feedv1.NewFeedServiceClient(sc.link.Dial())
		sc.show(strings.HasSuffix(sc.link.Frames()[1].Text, " MAX_CONCURRENT_STREAMS=100"), "the server's %s: %s", sc.link.Frames()[1].Type, sc.link.Frames()[1].Text)
		is := sc.try(sc.client, most, limit)
		sc.show(is == (trial{}), "a request of %d B and a reply of %d: %v", most, limit, is.receipt)
		is = sc.try(sc.client, most+1, 10)
		sc.show(status.Code(is.send) == codes.ResourceExhausted, "one byte more: the client's Send returns %v", is.send)
		is = sc.try(plain, most+1, 10)
		sc.show(status.Code(is.recv) == codes.ResourceExhausted && status.Code(is.receipt) == status.Code(is.recv), "from a client without options: the server's Recv returns %v", is.recv)
		is = sc.try(sc.client, 10, limit+1)
		sc.show(status.Code(is.reply) == codes.ResourceExhausted && status.Code(is.receipt) == status.Code(is.reply), "a reply of %d B: the server's Send returns %v", limit+1, is.reply)
	})
}
