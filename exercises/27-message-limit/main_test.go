package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// What the exercise's README allows. All names of this file begin so that yours
// are free.
const (
	testLeast   = 16 << 10 // a chunk
	testMost    = 256 << 10
	testHeld    = 1 << 20
	testEmpties = 10 // times 0 and nil in a row
	testSoon    = time.Second
	testLong    = 40 * 24 * time.Hour
)

// testNoise is what all blobs are made of, from different places on.
var testNoise = func() []byte {
	b := make([]byte, 65_521)
	random := rand.New(rand.NewPCG(27, 27))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}()

// A testReader has one blob, and uses what io.Reader allows.
type testReader struct {
	t       testing.TB
	size    int
	from    int                         // where in the noise it begins
	piece   int                         // bytes a Read returns at most; 0 is as many as are wanted
	empties int                         // how often Read says 0, nil before each piece
	end     error                       // what it ends with, io.EOF if nil
	with    bool                        // it comes with the last bytes
	pause   func(read, reads int) error // is called first in each Read, if set
	ahead   func(read int) error        // is called last

	mu          sync.Mutex
	read, reads int
	reading     bool
}

func (s *testReader) Read(p []byte) (n int, err error) {
	s.mu.Lock()
	if s.reading {
		s.t.Errorf("Read was called while another Read was under way")
	}
	s.reading = true
	s.reads++
	s.mu.Unlock()
	if s.pause != nil {
		err = s.pause(s.read, s.reads)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = false
	if err != nil || s.reads%(s.empties+1) > 0 {
		return 0, err
	}
	n = min(len(p), s.size-s.read)
	if s.piece > 0 {
		n = min(n, s.piece)
	}
	for at := 0; at < n; {
		at += copy(p[at:n], testNoise[(s.from+s.read+at)%len(testNoise):])
	}
	for i := n; i < min(len(p), n+10); i++ {
		p[i] = 0xee // what is behind n is the reader's, too, for the time of the call
	}
	s.read += n
	if s.ahead != nil {
		if err := s.ahead(s.read); err != nil {
			return 0, err
		}
	}
	if s.read == s.size && (n == 0 || s.with) {
		err = s.end
		if err == nil {
			err = io.EOF
		}
	}
	return n, err
}

func (s *testReader) Close() error {
	s.t.Errorf("putBlob has closed r, which is its caller's")
	return nil
}

func (s *testReader) Seek(int64, int) (int64, error) {
	s.t.Errorf("putBlob has called Seek of r, and not just Read: it has one try")
	return 0, errors.ErrUnsupported
}

// had returns how many bytes have been read, by how many calls.
func (s *testReader) had() (read, reads int, reading bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read, s.reads, s.reading
}

// receipt is the right one for the first n bytes.
func (s *testReader) receipt(n int) *feedv1.PutBlobResult {
	h := sha256.New()
	io.Copy(h, &testReader{size: n, from: s.from})
	return &feedv1.PutBlobResult{Size: int64(n), Sha256: h.Sum(nil)}
}

func testSame(a, b *feedv1.PutBlobResult) bool {
	return a.GetSize() == b.GetSize() && bytes.Equal(a.GetSha256(), b.GetSha256())
}

// A testUpload is what a handler has seen of one.
type testUpload struct {
	size       int
	chunks     []int
	hash       hash.Hash
	end        error // of Recv; nil: the script did not come to the end
	ended      time.Time
	kept, done bool
}

func (u *testUpload) add(c *feedv1.Chunk) {
	n := len(c.GetData())
	u.size, u.chunks = u.size+n, append(u.chunks, n)
	u.hash.Write(c.GetData())
}

func (u *testUpload) receipt() *feedv1.PutBlobResult {
	return &feedv1.PutBlobResult{Size: int64(u.size), Sha256: u.hash.Sum(nil)}
}

// wrongChunk says which chunk is too small or too large.
func (u *testUpload) wrongChunk() string {
	for i, n := range u.chunks {
		switch last := i == len(u.chunks)-1; {
		case n == 0:
			return fmt.Sprintf("chunk %d of %d is empty", i+1, len(u.chunks))
		case n > testMost:
			return fmt.Sprintf("chunk %d has %d B, want %d at most", i+1, n, testMost)
		case n < testLeast && !last:
			return fmt.Sprintf("chunk %d of %d has %d B, want %d at least in all but the last", i+1, len(u.chunks), n, testLeast)
		}
	}
	return ""
}

type (
	testStream = grpc.ClientStreamingServer[feedv1.Chunk, feedv1.PutBlobResult]
	testScript func(u *testUpload, stream testStream) error
)

// testAll is more chunks than a blob of this check may have.
const testAll = 200

// testHear receives most chunks, or all before the end.
func testHear(u *testUpload, stream testStream, most int) {
	for len(u.chunks) < most && u.end == nil {
		var c *feedv1.Chunk
		if c, u.end = stream.Recv(); u.end == nil {
			u.add(c)
		}
	}
}

// testKeeps is the script of a good server.
func testKeeps(u *testUpload, stream testStream) error {
	testHear(u, stream, testAll)
	switch u.end {
	case nil:
		return status.Error(codes.Aborted, "the check has seen enough chunks")
	case io.EOF:
		u.kept = true
		return stream.SendAndClose(u.receipt())
	}
	return u.end
}

// testAnswers hears most chunks and says something else.
func testAnswers(most int, receipt func(*feedv1.PutBlobResult), err error) testScript {
	return func(u *testUpload, stream testStream) error {
		testHear(u, stream, most)
		if u.end != nil && u.end != io.EOF {
			return u.end
		}
		if receipt != nil {
			r := u.receipt()
			receipt(r)
			if err := stream.SendAndClose(r); err != nil {
				return err
			}
		}
		return err
	}
}

// testStays hears most chunks and waits until the client is gone.
func testStays(most int) testScript {
	return func(u *testUpload, stream testStream) error {
		testHear(u, stream, most)
		<-stream.Context().Done()
		return stream.Context().Err()
	}
}

// A testBench is a server that follows scripts.
type testBench struct {
	*lab.Lab
	feedv1.UnimplementedFeedServiceServer
	link   *lab.Link
	srv    *grpc.Server
	client feedv1.FeedServiceClient

	mu            sync.Mutex
	script        testScript
	streams, most int         // that there were and that there may be
	u             *testUpload // the last one
}

// testOn runs body with a server that takes messages of 300 KiB.
func testOn(t *testing.T, body func(*testBench), opts ...grpc.DialOption) {
	t.Helper()
	if t.Failed() {
		return // the first case that fails says what is wrong
	}
	lab.Run(t, func(l *lab.Lab) {
		b := &testBench{Lab: l, link: l.NewLink()}
		b.srv = b.link.Serve(b, grpc.MaxRecvMsgSize(300<<10))
		b.client = feedv1.NewFeedServiceClient(b.link.Dial(opts...))
		body(b)
	}, lab.Lasts(10*testLong))
}

func (b *testBench) begin(script testScript, most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.script, b.streams, b.most, b.u = script, 0, most, &testUpload{hash: sha256.New()}
}

func (b *testBench) PutBlob(stream testStream) error {
	u := &testUpload{hash: sha256.New()}
	b.mu.Lock()
	b.streams++
	b.u = u
	script, more := b.script, b.streams > b.most
	b.mu.Unlock()
	if more {
		b.Errorf("putBlob opened a stream more, when the first one had ended: it has one try")
		return status.Error(codes.Aborted, "the check has seen enough streams")
	}
	err := script(u, stream)
	b.mu.Lock()
	defer b.mu.Unlock()
	u.ended, u.done = time.Now(), true
	return err
}

// put calls putBlob, and checks what holds for each call.
func (b *testBench) put(ctx context.Context, what string, script testScript, s *testReader, limit time.Duration) (u *testUpload, receipt *feedv1.PutBlobResult, err error) {
	b.Helper()
	s.t = b
	b.begin(script, 1)
	b.Call(what+": putBlob", limit, func() { receipt, err = putBlob(ctx, b.client, s) })
	_, reads, reading := s.had()
	time.Sleep(testSoon)
	_, later, _ := s.had()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.Failed():
		b.FailNow()
	case reading || later > reads:
		b.Fatalf("%s: putBlob has returned, and r is still being read", what)
	case b.streams > 0 && !b.u.done:
		b.Fatalf("%s: putBlob has returned error %v, and %v later its stream is still open: the server waits for more", what, err, testSoon)
	}
	return b.u, receipt, err
}

// putAll wants an upload to go well.
func (b *testBench) putAll(what string, script testScript, s *testReader, limit time.Duration) *testUpload {
	b.Helper()
	u, receipt, err := b.put(b.Context(), what, script, s, limit)
	b.wantKept(what, s, u, receipt, err)
	return u
}

func (b *testBench) wantKept(what string, s *testReader, u *testUpload, receipt *feedv1.PutBlobResult, err error) {
	b.Helper()
	wrong, right := u.wrongChunk(), s.receipt(s.size)
	switch {
	case wrong != "":
		b.Fatalf("%s: %s", what, wrong)
	case status.Code(err) == codes.ResourceExhausted:
		b.Fatalf("%s: putBlob returned the error %q: a chunk has at most 256 KiB of data", what, err)
	case err != nil:
		b.Fatalf("%s: putBlob returned the error %q, the server has heard %d of %d B", what, err, u.size, s.size)
	case u.size != s.size:
		b.Fatalf("%s: the server has kept %d B, r had %d", what, u.size, s.size)
	case !testSame(u.receipt(), right):
		b.Fatalf("%s: the server has kept %d B, and they are not those that r had", what, u.size)
	case !testSame(receipt, right):
		b.Fatalf("%s: all is well, and putBlob returned the receipt %v, which is not the server's", what, lab.Text(receipt))
	}
}

// chunk is how much data the answer puts into its first chunk.
func (b *testBench) chunk() int {
	b.Helper()
	u, _, _ := b.put(b.Context(), "a blob of 400000 B", testKeeps, &testReader{size: 400_000}, time.Minute)
	return append(u.chunks, 65_536)[0]
}

// wantCode checks the error of an upload that failed: a context's own error is
// as good as the status that gRPC makes of it.
func (b *testBench) wantCode(what string, err error, want codes.Code, text string) {
	b.Helper()
	got := status.Code(err)
	switch {
	case errors.Is(err, context.Canceled):
		got = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		got = codes.DeadlineExceeded
	}
	switch {
	case err == nil:
		b.Fatalf("%s: putBlob returned no error, want code %v", what, want)
	case got != want && errors.Is(err, io.EOF):
		b.Fatalf("%s: putBlob returned EOF, which says that the stream has ended and not how, want code %v", what, want)
	case got != want:
		b.Fatalf("%s: putBlob returned code %v (%v), want %v", what, got, err, want)
	case !strings.Contains(err.Error(), text):
		b.Fatalf("%s: putBlob returned %q, which has lost the text of the status, %q", what, err, text)
	}
}

func (b *testBench) wantNothingKept(what string, u *testUpload) {
	b.Helper()
	if u.kept {
		b.Fatalf("%s: the server has kept %d B as a blob: it was told that this is all", what, u.size)
	}
}

func TestABlobOfAnySizeArrives(t *testing.T) {
	testOn(t, func(b *testBench) {
		what := fmt.Sprintf("a blob of 400000 B, and the server takes messages of %d", 300<<10)
		n := b.putAll(what, testKeeps, &testReader{size: 400_000}, time.Minute).chunks[0]
		for _, size := range []int{0, 1, n - 1, n, n + 1, 3 * n} {
			what := fmt.Sprintf("a blob of %d B, and the first chunk of a larger one had %d", size, n)
			b.putAll(what, testKeeps, &testReader{size: size, from: size}, time.Minute)
		}
	})
}

func TestABlobIsWhatItsReaderHas(t *testing.T) {
	testOn(t, func(b *testBench) {
		for _, size := range []int{50_000, 0, b.chunk()} {
			for _, piece := range []int{1 << 20, 1, 999} {
				for _, how := range []struct {
					what    string
					with    bool
					empties int
				}{
					{"and EOF after the last piece", false, 0},
					{"and EOF with the last piece", true, 0},
					{"and says 0, nil 10 times before each piece", false, testEmpties},
				} {
					if piece == 1 && (size != 50_000 || how.empties > 0) {
						continue
					}
					s := &testReader{size: size, piece: piece, with: how.with, empties: how.empties, from: piece}
					b.putAll(fmt.Sprintf("r has %d B, Read returns %d B at most, %s", size, piece, how.what), testKeeps, s, time.Minute)
				}
			}
		}
	})
}

// A testSink is a stream without a network: what was sent is away.
type testSink struct {
	grpc.ClientStream
	b      *testBench
	ctx    context.Context
	closed chan struct{}
	before uint64

	mu sync.Mutex
	u  testUpload
}

const testLarge = 4 << 20

func (f *testSink) SendMsg(m any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.u.size
	f.u.add(m.(*feedv1.Chunk))
	if was>>18 == f.u.size>>18 {
		return nil
	}
	// 1 MiB that putBlob may hold, one chunk that it sends, half a MiB for others.
	if now := testInUse(); now > f.before+testHeld+3*testMost && !f.b.Failed() {
		f.b.Errorf("putBlob has sent %d B of a blob of %d, and %d B more are in use than before: it holds chunks that it has sent, or the array that they were cut from", f.u.size, testLarge, now-f.before)
	}
	return nil
}

// testInUse is how many bytes of the heap are in use.
func testInUse() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func (f *testSink) Context() context.Context { return f.ctx }

func (f *testSink) CloseSend() error {
	close(f.closed)
	return nil
}

func (f *testSink) RecvMsg(m any) error {
	select {
	case <-f.closed:
	case <-f.ctx.Done():
		return status.FromContextError(f.ctx.Err()).Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.u.receipt()
	m.(*feedv1.PutBlobResult).Size, m.(*feedv1.PutBlobResult).Sha256 = r.Size, r.Sha256
	return nil
}

func TestMemoryDoesNotGrowWithTheBlob(t *testing.T) {
	f := &testSink{u: testUpload{hash: sha256.New()}}
	sink := func(ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, _ grpc.Streamer, _ ...grpc.CallOption) (grpc.ClientStream, error) {
		f.ctx = ctx
		return f, nil
	}
	testOn(t, func(b *testBench) {
		testInUse() // empties the first half of gRPC's pools, and the next one the other
		f.b, f.closed, f.before = b, make(chan struct{}), testInUse()
		s := &testReader{size: testLarge}
		s.ahead = func(read int) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if held := read - f.u.size; held > testHeld {
				b.Errorf("putBlob has read %d B of a blob of %d and has sent %d: it holds %d B, want %d at most", read, testLarge, f.u.size, held, testHeld)
			}
			if b.Failed() {
				return errors.New("the check gives no more")
			}
			return nil
		}
		_, receipt, err := b.put(b.Context(), "a large blob", nil, s, time.Minute)
		b.wantKept("a blob of 4 MiB", s, &f.u, receipt, err)
	}, grpc.WithChainStreamInterceptor(sink))
}

// A testKeeper keeps the messages of a stream, as a log may.
type testKeeper struct {
	grpc.ClientStream
	sent []*feedv1.Chunk
	were []string
}

func (k *testKeeper) SendMsg(m any) error {
	c := m.(*feedv1.Chunk)
	k.sent, k.were = append(k.sent, c), append(k.were, string(c.GetData()))
	return k.ClientStream.SendMsg(m)
}

func TestWhatWasSentIsLeftAlone(t *testing.T) {
	k := &testKeeper{}
	keep := func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (_ grpc.ClientStream, err error) {
		k.ClientStream, err = open(ctx, desc, conn, method, opts...)
		return k, err
	}
	testOn(t, func(b *testBench) {
		b.putAll("an interceptor keeps the messages", testKeeps, &testReader{size: 600_000, piece: 30_000}, time.Minute)
		for i, c := range k.sent {
			if string(c.GetData()) != k.were[i] {
				b.Fatalf("message %d of %d is not what it was when putBlob sent it: somebody who keeps it, as a stats handler may, has other bytes now", i+1, len(k.sent))
			}
		}
	}, grpc.WithChainStreamInterceptor(keep))
}

func TestAReaderThatFailsLeavesNoHalf(t *testing.T) {
	testOn(t, func(b *testBench) {
		n := b.chunk()
		for _, fails := range []error{
			errors.New("disk: bad sector"),
			io.ErrUnexpectedEOF, // what a download says that was cut off
			fmt.Errorf("tape: %w", io.EOF),
			status.Error(codes.NotFound, "no such part"),
			context.Canceled,
		} {
			for _, size := range []int{100_000, 20_000, n, 0} {
				for i, how := range []string{"alone", "with the last bytes"} {
					s := &testReader{size: size, end: fails, with: i == 1}
					what := fmt.Sprintf("r fails with %q after %d B; Read returns the error %s", fails, size, how)
					u, _, err := b.put(b.Context(), what, testKeeps, s, time.Minute)
					b.wantNothingKept(what, u)
					switch {
					case err == nil:
						b.Fatalf("%s: putBlob returned no error", what)
					case !errors.Is(err, fails):
						b.Fatalf("%s: putBlob returned %q, in which errors.Is does not find it", what, err)
					}
				}
			}
		}
	})
}

// testPause makes each Read take its time.
func testPause(d time.Duration) func(int, int) error {
	return func(int, int) error { time.Sleep(d); return nil }
}

func TestTheStatusReachesTheCaller(t *testing.T) {
	thanks := func(*feedv1.PutBlobResult) {}
	testOn(t, func(b *testBench) {
		for _, tt := range []struct {
			what    string
			most    int
			receipt func(*feedv1.PutBlobResult)
			code    codes.Code
		}{
			{"rejects it at once", 0, nil, codes.PermissionDenied},
			{"rejects it at once", 0, nil, codes.Unavailable},
			{"rejects it after a chunk", 1, nil, codes.ResourceExhausted},
			{"rejects it after a chunk", 1, nil, codes.Canceled},
			{"rejects it when it is there", testAll, nil, codes.FailedPrecondition},
			{"sends a receipt and then rejects it", testAll, thanks, codes.Aborted},
			{"ends with OK and no receipt", 1, nil, codes.OK},
		} {
			for _, size := range []int{10_000_000, 200_000, 0} {
				for _, pace := range []time.Duration{0, time.Second} {
					if tt.most == testAll && (size > 1_000_000 || pace > 0) {
						continue
					}
					s, then := &testReader{size: size}, -1
					s.pause = func(read, _ int) error {
						b.mu.Lock()
						if then < 0 && b.u.done && time.Since(b.u.ended) >= lab.Latency { // the end has arrived
							then = read
						}
						b.mu.Unlock()
						time.Sleep(pace)
						return nil
					}
					what := fmt.Sprintf("a blob of %d B, a Read takes %v, and the server %s", size, pace, tt.what)
					_, _, err := b.put(b.Context(), what, testAnswers(tt.most, tt.receipt, status.Error(tt.code, "EOF: the quota")), s, time.Hour)
					want, text := tt.code, "EOF: the quota"
					if want == codes.OK {
						want, text = codes.Internal, ""
					}
					b.wantCode(what, err, want, text)
					if read, _, _ := s.had(); then >= 0 && read-then > testMost {
						b.Fatalf("%s: putBlob has read %d B more when the server's end had reached it, want %d at most", what, read-then, testMost)
					}
				}
			}
		}
	})
}

func TestAReceiptForSomethingElseIsNoSuccess(t *testing.T) {
	testOn(t, func(b *testBench) {
		for _, tt := range []struct {
			what    string
			most    int
			receipt func(*feedv1.PutBlobResult)
		}{
			{"says OK after the first chunk, with a receipt for it", 1, func(*feedv1.PutBlobResult) {}},
			{"says OK at once, with a receipt for nothing", 0, func(*feedv1.PutBlobResult) {}},
			{"has one byte less on its receipt", testAll, func(r *feedv1.PutBlobResult) { r.Size-- }},
			{"has other bytes on its receipt", testAll, func(r *feedv1.PutBlobResult) { r.Sha256[31] ^= 1 }},
			{"has no hash on its receipt", testAll, func(r *feedv1.PutBlobResult) { r.Sha256 = nil }},
			{"says OK after the first chunk, with a receipt for as much again", 1, func(r *feedv1.PutBlobResult) {
				two := (&testReader{}).receipt(2 * int(r.Size))
				r.Size, r.Sha256 = two.Size, two.Sha256
			}},
		} {
			for _, size := range []int{600_000, 10} {
				for _, pace := range []time.Duration{0, time.Second} {
					if size == 10 && tt.most == 1 || tt.most == testAll && (size > 10 || pace > 0) {
						continue // a chunk is all of it, and the receipt is right
					}
					what := fmt.Sprintf("a blob of %d B, Read takes %v, and the server %s", size, pace, tt.what)
					_, receipt, err := b.put(b.Context(), what, testAnswers(tt.most, tt.receipt, nil), &testReader{size: size, pause: testPause(pace)}, time.Hour)
					if err == nil {
						b.Fatalf("%s: putBlob returned %s and no error", what, lab.Text(receipt))
					}
				}
			}
		}
	})
}

func TestAChunkThatCannotBeSentFailsTheUpload(t *testing.T) {
	testOn(t, func(b *testBench) {
		what := "the client may send messages of 1,000 B"
		u, _, err := b.put(b.Context(), what, testKeeps, &testReader{size: 300_000}, time.Minute)
		b.wantCode(what, err, codes.ResourceExhausted, "trying to send message larger than max")
		b.wantNothingKept(what, u)
	}, grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1000)))
}

func TestPutBlobSetsNoLimitOfItsOwn(t *testing.T) {
	testOn(t, func(b *testBench) {
		for i, what := range []string{"the second Read takes", "the server takes no chunk for", "the receipt takes"} {
			var takes [3]time.Duration
			takes[i] = testLong
			s := &testReader{size: 300_000, pause: func(_, reads int) error {
				if reads == 2 {
					time.Sleep(takes[0])
				}
				return nil
			}}
			b.putAll(fmt.Sprintf("%s %v", what, testLong), func(u *testUpload, stream testStream) error {
				sleep := func(d time.Duration) {
					select {
					case <-time.After(d):
					case <-stream.Context().Done():
					}
				}
				sleep(takes[1])
				testHear(u, stream, testAll)
				sleep(takes[2])
				return testKeeps(u, stream)
			}, s, 2*testLong)
		}
	})
}

// testEnd checks that putBlob ends, whatever it waits for, when does is called
// after two seconds.
func testEnd(t *testing.T, what string, want codes.Code, does func(b *testBench, cancel func(error))) {
	t.Helper()
	own := want == codes.Canceled || want == codes.DeadlineExceeded // the caller's end
	for _, tt := range []struct {
		what   string
		script testScript
		s      *testReader
		until  time.Duration // the Read that is under way returns, or 0
	}{
		{"the server reads one chunk while Send waits", testStays(1), &testReader{size: 1_000_000}, 0},
		{"the server reads all and sends no receipt", testStays(testAll), &testReader{size: 200_000}, 0},
		{"the second Read is under way for a minute", testKeeps, &testReader{size: 1_000_000, pause: func(_, reads int) error {
			if reads == 2 {
				time.Sleep(time.Minute)
			}
			return nil
		}}, time.Minute},
		{"each Read takes 0.3s and returns 100 B", testKeeps, &testReader{size: 1_000_000, piece: 100, pause: testPause(300 * time.Millisecond)}, 0},
		{"each Read takes 0.3s and says 0, nil 10 times before it returns 100 B", testKeeps,
			&testReader{size: 1_000_000, piece: 100, empties: testEmpties, pause: testPause(300 * time.Millisecond)}, 0},
	} {
		if tt.s.piece > 0 && !own {
			continue // nobody knows until a chunk is full
		}
		testOn(t, func(b *testBench) {
			start, after, pause := time.Now(), 0, tt.s.pause
			tt.s.pause = func(read, reads int) error {
				if time.Since(start) > 2*time.Second+lab.Latency {
					after++
				}
				if pause != nil {
					return pause(read, reads)
				}
				return nil
			}
			ctx, cancel := context.WithCancelCause(b.Context())
			defer cancel(nil)
			if want == codes.DeadlineExceeded {
				var stop func()
				ctx, stop = context.WithTimeout(ctx, 2*time.Second)
				defer stop()
			} else {
				time.AfterFunc(2*time.Second, func() { does(b, cancel) })
			}
			what := fmt.Sprintf("%s; after 2s %s", tt.what, what)
			u, _, err := b.put(ctx, what, tt.script, tt.s, time.Hour)
			took := time.Since(start) - testSoon
			b.wantCode(what, err, want, "")
			if late := took - max(2*time.Second, tt.until); late > testSoon {
				b.Fatalf("%s: putBlob returned %v late, want at most %v", what, late, testSoon)
			}
			if own && after > 1 {
				b.Fatalf("%s: putBlob called Read %d times after that, want once at most", what, after)
			}
			b.wantNothingKept(what, u)
		})
	}
}

func TestTheEndOfTheContextEndsIt(t *testing.T) {
	testEnd(t, "the caller cancels", codes.Canceled, func(_ *testBench, cancel func(error)) { cancel(errors.New("had enough")) })
	testEnd(t, "the deadline passes", codes.DeadlineExceeded, nil)
}

func TestItEndsWhenTheServerDies(t *testing.T) {
	testEnd(t, "the network is cut", codes.Unavailable, func(b *testBench, _ func(error)) { b.link.Cut() })
	testEnd(t, "the network is cut, and is back at once", codes.Unavailable, func(b *testBench, _ func(error)) { b.link.Cut(); b.link.Heal() })
	testEnd(t, "the server stops", codes.Unavailable, func(b *testBench, _ func(error)) { b.srv.Stop() })
	testOn(t, func(b *testBench) {
		b.link.Cut()
		time.Sleep(time.Second)
		_, _, err := b.put(b.Context(), "the server cannot be reached", testKeeps, &testReader{size: 300_000}, time.Minute)
		b.wantCode("the server cannot be reached", err, codes.Unavailable, "")
	})
}

func TestTwoUploadsAtOnceKnowNothingOfEachOther(t *testing.T) {
	testOn(t, func(b *testBench) {
		b.begin(testKeeps, 4)
		var all sync.WaitGroup
		for n := range 4 {
			all.Go(func() {
				s := &testReader{t: b, size: 100_000 + n, from: 1000 * n, piece: 10_000}
				s.pause = func(_, reads int) error {
					if reads > 1 {
						time.Sleep(time.Millisecond)
						return nil
					}
					if b.Settle(); b.LockWanted() { // then time stands
						b.Errorf("4 uploads at once: one call waits for the other: they share a lock")
						return errors.New("the check gives no more")
					}
					return nil
				}
				receipt, err := putBlob(b.Context(), b.client, s)
				if !b.Failed() && (err != nil || !testSame(receipt, s.receipt(s.size))) {
					b.Errorf("4 uploads at once: number %d returned the receipt %s, error %v, and it is not for what r had", n+1, lab.Text(receipt), err)
				}
			})
		}
		all.Wait()
	})
}
