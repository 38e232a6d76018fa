package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// TestMain lets this binary be the client process, too: one that an interrupt
// ends without a clean-up, even where a shell has it ignored.
func TestMain(m *testing.M) {
	if addr := os.Getenv(isVictim); addr != "" {
		ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt)
		context.AfterFunc(ctx, func() { os.Exit(1) })
		fmt.Println(victim(addr, os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// patience is how long something has over TCP that should come at once.
const patience = 5 * time.Second

// soon is a context for what starts and kills a process.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

// await takes n values from a room's channel.
func await(t *testing.T, what string, n int, c <-chan struct{}) {
	t.Helper()
	late := time.After(patience)
	for i := range n {
		select {
		case <-c:
		case <-late:
			t.Fatalf("%v after the kill %d of %d %s", patience, i, n, what)
		}
	}
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// noted notes what the handler's Recv returned at last.
type noted struct {
	chatServer
	last *error
}

func (s noted) Recv() (*feedv1.ChatMessage, error) {
	msg, err := s.chatServer.Recv()
	if err != nil {
		*s.last = err
	}
	return msg, err
}

// notingRoom is a room whose handlers leave by defer; last is what ended Recv.
func notingRoom(last *error) *room {
	return newRoom(func(r *room, name string, stream chatServer) error {
		return r.chatUntilTheEnd(name, noted{stream, last})
	})
}

// open opens a chat in the lab and returns when the room has answered.
func open(l *lab.Lab, client feedv1.FeedServiceClient, name string) grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage] {
	l.Helper()
	stream, err := client.Chat(l.Context())
	if err == nil {
		err = stream.Send(&feedv1.ChatMessage{From: name})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		l.Fatal(err)
	}
	return stream
}

// The recording that the README shows. A cut stands for the kill: it resets
// the connection, as the kernel of a process does that dies with unread data.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		r := newRoom((*room).chatUntilTheEnd)
		link.Serve(r)
		client := feedv1.NewFeedServiceClient(link.Dial())
		first := open(l, client, "carol")
		time.Sleep(10 * time.Millisecond)
		link.Note(lab.Client, "kill -9")
		link.Cut()
		<-r.ended
		link.Note(lab.Server, "Recv returned, the handler has ended, listed: %v", r.list())
		first.Recv()
		link.Heal()
		time.Sleep(2 * time.Second) // the client's channel tries again
		second := open(l, client, "dave")
		time.Sleep(10 * time.Millisecond)
		link.Note(lab.Client, "the cable is pulled, and nobody is told")
		link.Blackhole()
		time.Sleep(time.Hour)
		link.Note(lab.Server, "the handler waits in Recv, listed: %v", r.list())
		var frames []string
		for line := range strings.Lines(link.Ladder()) {
			if !strings.Contains(line, "SETTINGS") && !strings.Contains(line, "WINDOW_UPDATE") {
				frames = append(frames, line)
			}
		}
		lab.Golden(t, "wire.txt", strings.Join(frames, ""))
		link.Heal()
		second.CloseSend()
		second.Recv()
	}, lab.Lasts(2*time.Hour))
}

func TestAKilledClientEndsItsHandler(t *testing.T) {
	var last error
	r := notingRoom(&last)
	err := r.kill(soon(t), "carol", patience, func(took time.Duration) {
		if left, listed := r.orphans(), r.list(); len(left)+len(listed) > 0 || took > patience {
			t.Errorf("the server knew after %v; never ended: %v, listed: %v", took, left, listed)
		}
		if status.Code(last) != codes.Canceled {
			t.Errorf("the handler's Recv returned %v, want Canceled", last)
		}
		t.Logf("%v after the kill Recv returned %v; log: %q", took, last, r.log)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryStreamOfTheProcessEnds(t *testing.T) {
	r := newRoom((*room).chatUntilTheEnd)
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprint("client", i))
	}
	client := startChat(t, r, names...)
	before := len(r.list())
	client.Process.Kill()
	client.Wait()
	await(t, "handlers have ended", len(names), r.ended)
	if left := r.list(); before != 100 || len(left) > 0 {
		t.Errorf("%d were listed before the kill and %d after it, want 100 and none", before, len(left))
	}
	t.Logf("one process, one connection, %d streams: all handlers have ended", before)
}

// A death that the process does not see coming looks the same whatever its
// cause: the connection ends.
func TestKilledAndInterruptedLookAlike(t *testing.T) {
	deaths := []os.Signal{os.Kill, os.Interrupt}
	if runtime.GOOS == "windows" { // os.Process cannot send the second one there
		deaths = deaths[:1]
	}
	for _, death := range deaths {
		var last error
		r := notingRoom(&last)
		client := startChat(t, r, "carol")
		if err := client.Process.Signal(death); err != nil {
			t.Fatal(err)
		}
		client.Wait()
		await(t, "handlers have ended", 1, r.ended)
		if got := fmt.Sprint(last); got != "rpc error: code = Canceled desc = context canceled" {
			t.Errorf("%v: the handler's Recv returned %v, want Canceled", death, got)
		}
		t.Logf("%v: Recv returned %v", death, last)
	}
	// A cut in the lab is the same to the handler.
	lab.Run(t, func(l *lab.Lab) {
		var last error
		r := notingRoom(&last)
		client, link := l.Connect(r)
		stream := open(l, client, "carol")
		link.Cut()
		<-r.ended
		stream.Recv()
		if got := fmt.Sprint(last); got != "rpc error: code = Canceled desc = context canceled" {
			l.Errorf("cut: the handler's Recv returned %v, want Canceled", got)
		}
	})
}

func TestTheLogNamesTheOrphan(t *testing.T) {
	r := newRoom((*room).chatUntilTheRoomCloses)
	err := r.kill(soon(t), "alice", 200*time.Millisecond, func(time.Duration) {
		if left := r.orphans(); !slices.Equal(left, []string{"alice"}) {
			t.Errorf("the log names %v as never ended, want alice", left)
		}
		t.Logf("log: %q, never ended: %v", r.log, r.orphans())
	})
	if err != nil {
		t.Fatal(err)
	}
	if left := r.orphans(); len(left) > 0 {
		t.Errorf("the room is closed, and the log names %v as never ended", left)
	}
}

func TestLeavingAtEOFKeepsTheKilledListed(t *testing.T) {
	r := newRoom((*room).chatUntilEOF)
	err := r.kill(soon(t), "bob", patience, func(time.Duration) {
		if left, listed := r.orphans(), r.list(); len(left) > 0 || !slices.Equal(listed, []string{"bob"}) {
			t.Errorf("never ended: %v, listed: %v, want none and bob", left, listed)
		}
		t.Logf("log: %q, listed: %v", r.log, r.list())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What a half-closed stream does, the same handler does right.
func TestLeavingAtEOFIsRightForAHalfClose(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		r := newRoom((*room).chatUntilEOF)
		client, _ := l.Connect(r)
		stream := open(l, client, "bob")
		stream.CloseSend()
		stream.Recv()
		if listed := r.list(); len(listed) > 0 {
			l.Errorf("bob has half-closed, and %v is listed", listed)
		}
		l.Log("half-closed, and nobody is listed: a test of the good end sees nothing wrong")
	})
}

func TestABlackHoleEndsNothing(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		r := newRoom((*room).chatUntilTheEnd)
		client, link := l.Connect(r)
		stream := open(l, client, "dave")
		link.Blackhole()
		time.Sleep(time.Hour)
		if left, listed := r.orphans(), r.list(); len(left) != 1 || len(listed) != 1 || len(r.gone) != 0 {
			l.Errorf("after an hour never ended: %v, listed: %v, contexts that ended: %d, want dave, dave and none", left, listed, len(r.gone))
		}
		l.Logf("an hour after the cable was pulled: never ended %v, listed %v", r.orphans(), r.list())
		link.Heal()
		stream.CloseSend()
		stream.Recv()
	}, lab.Lasts(2*time.Hour))
}

func TestSendSucceedsIntoABlackHole(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var sent atomic.Int32
		start := make(chan bool)
		r := newRoom(func(_ *room, name string, stream chatServer) error {
			if err := stream.Send(says("welcome " + name)); err != nil {
				return err
			}
			<-start
			for stream.Send(says(strings.Repeat("x", 994))) == nil { // 1,008 B with its frame
				sent.Add(1)
			}
			return nil
		})
		client, link := l.Connect(r)
		stream := open(l, client, "dave")
		link.Blackhole()
		close(start)
		time.Sleep(time.Hour)
		if n := sent.Load(); n != 131 {
			l.Errorf("%d Sends returned nil, want 131", n)
		}
		l.Logf("%d Sends returned nil, and one waits", sent.Load())
		link.Cut()
		<-r.ended
		stream.Recv()
	}, lab.Lasts(2*time.Hour))
}

// 100 clients, each with a connection of its own, which is cut, and ten streams.
func TestAThousandStreamsOfKilledClients(t *testing.T) {
	type left struct{ handlers, listed []int }
	count := func(chat func(*room, string, chatServer) error) (n left) {
		lab.Run(t, func(l *lab.Lab) {
			r := newRoom(chat)
			link := l.NewLink()
			link.Serve(r)
			for streams := 0; ; {
				time.Sleep(time.Second)
				n.handlers = append(n.handlers, len(r.orphans()))
				n.listed = append(n.listed, len(r.list()))
				if streams == 1000 {
					break
				}
				for range 20 {
					conn := link.Dial()
					for range 10 {
						streams++
						open(l, feedv1.NewFeedServiceClient(conn), fmt.Sprint("stream", streams))
					}
					link.Cut()
					conn.Close()
					link.Heal()
				}
			}
			close(r.closed)
		}, lab.Lasts(time.Hour))
		return n
	}
	waiting, atEOF, byDefer := count((*room).chatUntilTheRoomCloses), count((*room).chatUntilEOF), count((*room).chatUntilTheEnd)
	all, none := []int{0, 200, 400, 600, 800, 1000}, make([]int, 6)
	for _, tt := range []struct {
		what      string
		got, want []int
	}{
		{"handlers that wait for their room", waiting.handlers, all},
		{"names of handlers that wait for their room", waiting.listed, all},
		{"handlers that leave at io.EOF", atEOF.handlers, none},
		{"names of handlers that leave at io.EOF", atEOF.listed, all},
		{"handlers that leave by defer", byDefer.handlers, none},
		{"names of handlers that leave by defer", byDefer.listed, none},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s: %v are left, want %v", tt.what, tt.got, tt.want)
		}
		t.Logf("%s: %v are left", tt.what, tt.got)
	}
	list := func(n []int) string { return strings.ReplaceAll(fmt.Sprint(n), " ", ", ") }
	lab.Golden(t, "growth.mmd", fmt.Sprintf(`xychart-beta
    title "Names that are listed, and nobody is there"
    x-axis "streams of killed clients" [0, 200, 400, 600, 800, 1000]
    y-axis "names" 0 --> 1000
    line "left at io.EOF" %s
    line "left by defer" %s
`, list(atEOF.listed), list(byDefer.listed)))
}

// What the leak check says of the orphan, when its connection is long gone.
func TestTheLeakCheckNamesTheWaitingLine(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		r := newRoom((*room).chatUntilTheRoomCloses)
		client, link := l.Connect(r)
		stream := open(l, client, "alice")
		link.Cut()
		stream.Recv()
		lab.Golden(t, "leak.txt", strings.Join(l.Leaks(), "\n")+"\n")
		close(r.closed)
	})
}

// startChat serves the room and starts a client process that chats with it.
// Both end with the test.
func startChat(t *testing.T, r *room, names ...string) *exec.Cmd {
	t.Helper()
	addr, stop, err := r.serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	client, err := startVictim(soon(t), addr, names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Process.Kill(); client.Wait() }) // if the test has not
	return client
}
