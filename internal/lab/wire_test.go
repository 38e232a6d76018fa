package lab

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// oneChat is a whole stream: one line, its echo, the half-close, the end.
func oneChat(l *Lab) *Link {
	client, k := l.Connect(service{chat: echo})
	stream, err := client.Chat(context.Background())
	if err != nil {
		l.Fatal(err)
	}
	if err := stream.Send(line("hello")); err != nil {
		l.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		l.Fatal(err)
	}
	stream.CloseSend()
	if _, err := stream.Recv(); err != io.EOF {
		l.Fatal(err)
	}
	k.Note(Client, "Recv returned io.EOF")
	return k
}

const oneChatLadder = `
        ms  client                                                                            server
     0.000  HEADERS  /feed.v1.FeedService/Chat ────────────────────────────────────────────────────▶
     0.000  DATA  12 B  ChatMessage{text:"hello"} ─────────────────────────────────────────────────▶
     5.137  ◀────────────────────────────────────────────────────────────────── HEADERS  :status 200
     5.137  ◀───────────────────────────────────────────────── DATA  12 B  ChatMessage{text:"hello"}
    10.274  DATA  0 B  END_STREAM ─────────────────────────────────────────────────────────────────▶
    15.411  ◀──────────────────────────────────────────────────── HEADERS  grpc-status 0  END_STREAM
    20.548  Recv returned io.EOF
`

func TestTheLadderIsTheSameEachTime(t *testing.T) {
	for range 20 {
		Run(t, func(l *Lab) {
			if got := oneChat(l).Ladder(); got != oneChatLadder[1:] {
				l.Errorf("the ladder is\n%s\nwant%s", got, oneChatLadder)
			}
		})
	}
}

// A cancel returns before gRPC's writer has sent the RST_STREAM.
func TestTheRecordingHasAllOfThisInstant(t *testing.T) {
	Run(t, func(l *Lab) {
		client, k := l.Connect(service{chat: untilCancelled})
		for range 20 {
			ctx, cancel := context.WithCancel(l.Context())
			if _, err := client.Chat(ctx); err != nil {
				l.Fatal(err)
			}
			k.Mark()
			cancel()
			if ladder := k.Ladder(); strings.Contains(ladder, "HEADERS") || !strings.Contains(ladder, "RST_STREAM  CANCEL") {
				l.Fatalf("a stream, Mark and a cancel at one instant are recorded as\n%s", ladder)
			}
			time.Sleep(time.Second)
		}
	})
}

// The frames that cross the virtual network cross a real one too.
func TestTheFramesAgreeWithTCP(t *testing.T) {
	var seen [2][]string
	record := func(i int) func(*Lab) {
		return func(l *Lab) {
			for _, f := range oneChat(l).Frames() {
				seen[i] = append(seen[i], fmt.Sprint(f.From, f.Type, f.Stream, f.Length, f.Text, f.EndStream))
			}
		}
	}
	Run(t, record(0))
	OverTCP(t, record(1))
	if !slices.Equal(seen[0], seen[1]) {
		t.Errorf("the lab saw\n%s\nand TCP\n%s", strings.Join(seen[0], "\n"), strings.Join(seen[1], "\n"))
	}
}

func TestACompressedMessageIsNamed(t *testing.T) {
	Run(t, func(l *Lab) {
		k := l.NewLink()
		k.Serve(service{chat: echo})
		client := feedv1.NewFeedServiceClient(k.Dial(grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name))))
		if _, err := chat(l.Context(), client, "hello"); err != nil {
			l.Fatal(err)
		}
		if ladder := k.Ladder(); !strings.Contains(ladder, "compressed message of") {
			l.Errorf("the ladder does not say so:\n%s", ladder)
		}
	})
}

// Bytes are counted, and a server that goes away names the last stream it serves.
func TestBytesAndFarewellsAreDecoded(t *testing.T) {
	if got := Text(&feedv1.Chunk{Data: make([]byte, 10_000)}); got != "Chunk{data:(10000 B)}" {
		t.Errorf("a chunk of 10,000 bytes is %s", got)
	}
	Run(t, func(l *Lab) {
		k := l.NewLink()
		srv := k.Serve(service{chat: echo})
		client := feedv1.NewFeedServiceClient(k.Dial())
		if _, err := chat(l.Context(), client, "hello"); err != nil {
			l.Fatal(err)
		}
		srv.GracefulStop() // any stream that is on its way is served
		if ladder := k.Ladder(); !strings.Contains(ladder, "NO_ERROR graceful_stop (last stream 2147483647)") {
			l.Errorf("the ladder does not name the last stream:\n%s", ladder)
		}
	})
}

func TestFramesAreDecoded(t *testing.T) {
	Run(t, func(l *Lab) {
		client, k := l.Connect(service{chat: func(s chatServer) error {
			s.Recv()
			return status.Error(codes.Aborted, "no more")
		}})
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		stream, err := client.Chat(ctx)
		if err != nil {
			l.Fatal(err)
		}
		stream.Send(sized(40_000))
		stream.Recv()
		cancelled, cancel := context.WithCancel(l.Context())
		if _, err := client.Chat(cancelled); err != nil {
			l.Fatal(err)
		}
		cancel()
		time.Sleep(time.Second)
		frames := k.Frames()
		find := func(f Frame) bool {
			for _, got := range frames {
				if got.From == f.From && got.Stream == f.Stream && got.Type == f.Type && strings.Contains(got.Text, f.Text) && got.EndStream == f.EndStream {
					return true
				}
			}
			return false
		}
		for _, want := range []Frame{
			{From: Client, Stream: 1, Type: "HEADERS", Text: "/feed.v1.FeedService/Chat  grpc-timeout 1000"},
			{From: Client, Stream: 1, Type: "DATA", Text: ""},                            // the first of several frames of one message
			{From: Client, Stream: 1, Type: "DATA", Text: "ChatMessage{text:(39992 B)}"}, // the last
			{From: Server, Stream: 1, Type: "WINDOW_UPDATE", Text: "+"},
			{From: Server, Stream: 1, Type: "HEADERS", Text: "grpc-status 10  grpc-message no more", EndStream: true},
			{From: Client, Stream: 3, Type: "RST_STREAM", Text: "CANCEL"},
		} {
			if !find(want) {
				l.Errorf("no frame like %+v in\n%s", want, k.Ladder())
			}
		}
	})
}
