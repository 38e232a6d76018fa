package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

func TestRunLeavesNothingBehind(t *testing.T) {
	lab.EndsWell(t, run)
	lab.OverTCP(t, func(l *lab.Lab) { // and in the middle of a chat
		ctx, cancel := context.WithTimeout(l.Context(), 30*time.Millisecond)
		defer cancel()
		run(ctx, io.Discard, time.Hour)
	})
}

// A talk is one Chat that a chatter handles.
type talk struct {
	l      *lab.Lab
	link   *lab.Link
	srv    *grpc.Server
	conn   *grpc.ClientConn
	stream feedv1.FeedService_ChatClient
	cancel context.CancelFunc
	news   chan string  // has room for 1,000
	turns  atomic.Int64 // of the handler's loop
	ended  chan error   // what the handler returned
}

// meet opens a Chat.
func meet(ctx context.Context, l *lab.Lab, chat chatter) *talk {
	l.Helper()
	k := &talk{l: l, link: l.NewLink(), news: make(chan string, 1000), ended: make(chan error, 1)}
	k.srv = k.link.Serve(server{chat: func(stream chatServer) error {
		err := chat(stream, k.news, func() { k.turns.Add(1) })
		k.ended <- err
		return err
	}})
	k.conn = k.link.Dial()
	ctx, k.cancel = context.WithCancel(ctx)
	var err error
	if k.stream, err = feedv1.NewFeedServiceClient(k.conn).Chat(ctx); err != nil {
		l.Fatal(err)
	}
	return k
}

// hear returns the next message.
func (k *talk) hear() string {
	k.l.Helper()
	msg, err := k.stream.Recv()
	if err != nil {
		k.l.Fatal(err)
	}
	return msg.GetText()
}

// pumps counts the goroutines of listen.
func pumps() (receiving, holding int) {
	buf := make([]byte, 1<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		switch {
		case !strings.Contains(g, ".listen in goroutine"):
		case strings.Contains(g, "RecvMsg("):
			receiving++
		default:
			holding++
		}
	}
	return receiving, holding
}

// The recording that the README shows: both ways at the same chat.
func TestTheRecordingIsFresh(t *testing.T) {
	ladder := ""
	for _, way := range []struct {
		name string
		chat chatter
	}{{"chatInTurns", chatInTurns}, {"chat", chat}} {
		lab.Run(t, func(l *lab.Lab) {
			k := meet(l.Context(), l, func(stream chatServer, news <-chan string, turn func()) error {
				return way.chat(slow{stream}, news, turn)
			})
			defer k.cancel()
			time.Sleep(time.Second)
			k.link.Note(lab.Server, "%s: the room has news", way.name)
			k.news <- "fire!"
			time.Sleep(4 * time.Second)
			k.stream.Send(says("hello"))
			time.Sleep(time.Second)
			title, lines, _ := strings.Cut(k.link.Ladder(), "\n")
			if ladder == "" {
				ladder = title + "\n"
			}
			ladder += lines
		})
	}
	lab.Golden(t, "wire.txt", ladder)
}

// slow is a stream whose Send takes a millisecond, for a recording.
type slow struct{ chatServer }

func (s slow) Send(msg *feedv1.ChatMessage) error {
	time.Sleep(time.Millisecond)
	return s.chatServer.Send(msg)
}

// There is news each half second, the client says a line each four seconds.
func TestNewsWaitsForTheClientsNextLine(t *testing.T) {
	const (
		silence = 4 * time.Second
		poll    = time.Second
		first   = 300 * time.Millisecond
		each    = 500 * time.Millisecond
		rounds  = 24
	)
	chart := "xychart-beta\n    x-axis \"news of second (the client speaks at 0, 4, 8 and 12)\" 0 --> 12\n    y-axis \"seconds late\" 0 --> 4\n"
	for _, way := range []struct {
		name string
		chat chatter
		late func(at time.Duration) time.Duration // of news from that time since the handler began
	}{
		{"chatInTurns", chatInTurns, func(at time.Duration) time.Duration { return silence - at%silence }},
		{"chatPolling", chatPolling(poll), func(at time.Duration) time.Duration { return poll - at%poll }},
		{"chat", chat, func(time.Duration) time.Duration { return 0 }},
	} {
		var lates []string
		worst := time.Duration(0)
		lab.Run(t, func(l *lab.Lab) {
			k := meet(l.Context(), l, way.chat)
			defer k.cancel()
			start := time.Now()
			go func() {
				for range 4 {
					k.stream.Send(says("a line"))
					time.Sleep(silence)
				}
			}()
			go func() {
				time.Sleep(first)
				for range rounds {
					k.news <- time.Now().Format(time.RFC3339Nano)
					time.Sleep(each)
				}
			}()
			for len(lates) < rounds {
				at, err := time.Parse(time.RFC3339Nano, k.hear())
				if err != nil {
					continue // the answer to a line
				}
				late := time.Since(at) - lab.Latency
				if want := way.late(at.Sub(start) - lab.Latency); late != want {
					l.Errorf("%s: news %d came %v late, want %v", way.name, len(lates)+1, late, want)
				}
				worst = max(worst, late)
				lates = append(lates, fmt.Sprintf("%.1f", late.Seconds()))
			}
			time.Sleep(silence) // the client has said all
			l.Logf("%-11s  the worst news came %v late, %d turns for %d news and %d lines", way.name, worst, k.turns.Load(), rounds, 4)
		})
		chart += "    line [" + strings.Join(lates, ", ") + "]\n"
	}
	lab.Golden(t, "late.mmd", chart)
}

func TestASilentClientHearsNothing(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		k := meet(l.Context(), l, chatInTurns)
		defer k.cancel()
		time.Sleep(time.Second)
		began := time.Now()
		k.news <- "fire!"
		heard := make(chan string, 2)
		go func() { heard <- k.hear(); heard <- k.hear() }()
		time.Sleep(24 * time.Hour)
		if n := len(heard); n != 0 {
			l.Errorf("a silent client has heard %d messages, want none", n)
		}
		k.stream.Send(says("anything new?"))
		answer, news := <-heard, <-heard
		if late := time.Since(began); late != 24*time.Hour+2*lab.Latency || news != "fire!" {
			l.Errorf("after %v the client heard %q and %q", late, answer, news)
		}
		l.Logf("the client heard %q after %v, when it had said something", news, time.Since(began))
	}, lab.Lasts(25*time.Hour))
}

// replaced is a stream with a context of its own, as interceptors make them.
type replaced struct {
	chatServer
	ctx context.Context
}

func (r replaced) Context() context.Context { return r.ctx }

// A handler calls Recv at 0 s, at 1 s something happens. The source: a
// server's Recv waits for a message or for the context that the transport made
// (internal/transport/transport.go, (*recvBufferReader).read). No caller can
// give it another. The handler's return cancels that one (http2_server.go,
// (*http2Server).finishStream).
func TestWhatEndsAWaitInRecv(t *testing.T) {
	const day, severed = 24 * time.Hour, "a cancel, conn.Close(), a cut, srv.Stop()"
	table := "what happens                                  Recv in the handler\n"
	for _, row := range []struct {
		what  string
		limit time.Duration // of the RPC
		do    func(k *talk)
	}{
		{"a context derived from stream.Context() ends", day, func(*talk) {}}, // also one that a wrapper returns
		{"srv.GracefulStop()", day, func(k *talk) { go k.srv.GracefulStop() }},
		{"the client says a line", day, func(k *talk) { k.stream.Send(says("a line")) }},
		{"the client half-closes", day, func(k *talk) { k.stream.CloseSend() }},
		{"the client's deadline passes", time.Second, func(*talk) {}},
		{severed, day, func(k *talk) { k.cancel() }},
		{severed, day, func(k *talk) { k.conn.Close() }},
		{severed, day, func(k *talk) { k.link.Cut() }},
		{severed, day, func(k *talk) { k.srv.Stop() }},
		{"the handler returns", day, nil},
	} {
		line := fmt.Sprintf("%-44s  %s\n", row.what, inRecv(t, row.limit, row.do))
		if !strings.HasSuffix(table, line) {
			table += line
		}
	}
	lab.Golden(t, "ends.txt", table)
	t.Log("\n" + table)
}

// inRecv says what a handler's Recv does that waits since 0 s, when something
// happens at 1 s: the handler returns, if do is nil.
func inRecv(t *testing.T, limit time.Duration, do func(k *talk)) (cell string) {
	t.Helper()
	const at = time.Second
	cell = "waits on, an hour later still"
	lab.Run(t, func(l *lab.Lab) {
		said := make(chan string, 1)
		bounded, cancel := context.WithTimeout(l.Context(), limit)
		defer cancel()
		k := meet(bounded, l, func(stream chatServer, _ <-chan string, _ func()) error {
			ctx, cancel := context.WithTimeout(stream.Context(), at)
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer cancel()
				_, err := replaced{stream, ctx}.Recv()
				switch {
				case err == nil:
					said <- "returns the line"
				case errors.Is(err, io.EOF):
					said <- "returns io.EOF"
				case limit == at && (status.Code(err) == codes.Canceled || status.Code(err) == codes.DeadlineExceeded):
					said <- "returns code Canceled or DeadlineExceeded" // two timers: chapter 05
				default:
					said <- fmt.Sprintf("returns code %v", status.Code(err))
				}
			}()
			if do == nil {
				time.Sleep(at)
			} else {
				<-done
			}
			return nil
		})
		defer k.cancel()
		time.Sleep(at)
		if do != nil {
			do(k)
		}
		time.Sleep(time.Hour)
		select {
		case cell = <-said:
		default:
		}
	}, lab.Lasts(2*time.Hour))
	return cell
}

// A handler returns while its pump waits, in Recv or with a line.
func TestThePumpEndsWithItsHandlerAndNotBefore(t *testing.T) {
	for _, tt := range []struct {
		what    string
		lines   int
		queued  int  // messages that the client does not read
		joins   bool // the handler waits for its pump
		returns error
	}{
		{what: "the pump is in Recv", lines: 1},
		{what: "the pump is in Recv, and the handler fails", lines: 1, returns: status.Error(codes.NotFound, "no room")},
		{what: "the pump holds a line", lines: 2},
		{what: "the pump is in Recv, and 128 KiB are unread", lines: 1, queued: 128},
		{what: "the handler waits for its pump", lines: 1, joins: true},
	} {
		lab.Run(t, func(l *lab.Lab) {
			k := meet(l.Context(), l, func(stream chatServer, _ <-chan string, _ func()) error {
				in := listen(stream)
				<-in.lines
				for range tt.queued {
					stream.Send(says(strings.Repeat("x", 1024)))
				}
				time.Sleep(time.Minute)
				if tt.joins {
					for range in.lines {
					}
				}
				return tt.returns
			})
			defer k.cancel()
			for range tt.lines {
				k.stream.Send(says("a line"))
			}
			time.Sleep(30 * time.Second)
			receiving, holding := pumps()
			if want := tt.lines - 1; holding != want || receiving != 1-want {
				l.Errorf("%s: before the return %d pumps are in Recv and %d hold a line", tt.what, receiving, holding)
			}
			if tt.joins {
				time.Sleep(24 * time.Hour)
				if receiving, _ := pumps(); receiving != 1 || len(k.ended) != 0 {
					l.Errorf("%s: a day later %d pumps are in Recv, and %d handlers have returned, want 1 and none", tt.what, receiving, len(k.ended))
				}
				l.Logf("%s: a day later both wait for the client", tt.what)
				return
			}
			<-k.ended
			time.Sleep(time.Nanosecond) // what is due at this instant happens
			if receiving, holding = pumps(); receiving+holding > 0 {
				l.Errorf("%s: 1ns after the return there is a pump", tt.what)
			}
			l.Logf("%s: 1ns after the return it has ended", tt.what)
		}, lab.Lasts(25*time.Hour))
	}
}

// In real time: a hundred thousand turns for nothing, and one.
func TestSelectWithADefaultSpinsOverTCP(t *testing.T) {
	const many = 100_000
	lab.OverTCP(t, func(l *lab.Lab) {
		waits, spins := meet(l.Context(), l, chat), meet(l.Context(), l, chatSpinning)
		defer waits.cancel()
		defer spins.cancel()
		began := time.Now()
		for waits.turns.Load() == 0 || spins.turns.Load() < many && time.Since(began) < time.Minute {
			time.Sleep(time.Millisecond)
		}
		took := time.Since(began)
		if n := waits.turns.Load(); n != 1 {
			l.Errorf("nothing happened, and the loop of chat has turned %d times, want 1", n)
		}
		if n := spins.turns.Load(); n < many {
			l.Errorf("nothing happened for %v, and chatSpinning has turned %d times, want %d", took, n, many)
		}
		l.Logf("nothing happened for %v: chat has turned %d times, chatSpinning %d", took.Round(time.Millisecond), waits.turns.Load(), spins.turns.Load())
	})
}

// In a bubble time moves when everybody waits.
func TestASpinStopsVirtualTime(t *testing.T) {
	const many = 100_000
	lab.Run(t, func(l *lab.Lab) {
		elapsed := make(chan time.Duration, 1)
		k := meet(l.Context(), l, func(stream chatServer, news <-chan string, _ func()) error {
			n, began := 0, time.Now()
			return chatSpinning(stream, news, func() {
				if n++; n == many {
					elapsed <- time.Since(began)
					<-stream.Context().Done() // or nothing would ever end it
				}
			})
		})
		time.Sleep(time.Second)
		if d := <-elapsed; d != 0 {
			l.Errorf("%d turns took %v of virtual time, want 0", many, d)
		}
		k.cancel()
		l.Logf("%d turns, and the clock has not moved", many)
	})
}

// What a chat returns, and when, for each way in which it ends, while the loop
// is in its select, and while it is in Send and the pump holds a line. In Send
// it is told of a lost connection (http2_server.go, streamContextErr).
// chatPolling has no case for the end of stream.Context().
func TestEveryEndingFreesHandlerAndPump(t *testing.T) {
	for _, end := range []struct {
		what             string
		do               func(k *talk)
		inSelect, inSend codes.Code
	}{
		{"the client half-closes", func(k *talk) { k.stream.CloseSend() }, codes.OK, codes.OK},
		{"the client cancels", func(k *talk) { k.cancel() }, codes.Canceled, codes.Canceled},
		{"the client closes its connection", func(k *talk) { k.conn.Close() }, codes.Canceled, codes.Unavailable},
		{"the connection is cut", func(k *talk) { k.link.Cut() }, codes.Canceled, codes.Unavailable},
		{"the server stops", func(k *talk) { k.srv.Stop() }, codes.Canceled, codes.Unavailable},
	} {
		ends := func(name string, chat chatter, sending int, want codes.Code) {
			lab.Run(t, func(l *lab.Lab) {
				k := meet(l.Context(), l, chat)
				defer k.cancel()
				for range sending {
					k.news <- strings.Repeat("x", 1024)
				}
				time.Sleep(time.Minute)
				k.stream.Send(says("hello"))
				time.Sleep(time.Hour)
				if receiving, holding := pumps(); receiving+holding != 1 || (holding == 1) != (sending > 0) {
					l.Errorf("%s has %d pumps in Recv and %d with a line, while %d news are to be sent", name, receiving, holding, sending)
				}
				began := time.Now()
				end.do(k)
				err := <-k.ended
				took := time.Since(began)
				s, ok := status.FromError(err)
				if !ok {
					s = status.FromContextError(err)
				}
				time.Sleep(time.Nanosecond)
				if receiving, holding := pumps(); s.Code() != want || took > lab.Latency || receiving+holding > 0 {
					l.Errorf("%s: %v later %s returned %v, and %d pumps are left, want %v by %v and none", end.what, took, name, err, receiving+holding, want, lab.Latency)
				}
				l.Logf("%s: %v later %s (%d KiB to send) returns %v, and the pump has ended", end.what, took, name, sending, err)
			}, lab.Lasts(2*time.Hour))
		}
		ends("chat", chat, 0, end.inSelect)
		ends("chatPolling", chatPolling(time.Second), 0, end.inSelect)
		if end.inSend != codes.OK { // the half-close is heard after the news
			ends("chat", chat, 200, end.inSend)
		}
	}
}

// The price of one loop: while it sends, it does not listen.
func TestWhileSendWaitsTheLoopHearsNobody(t *testing.T) {
	const all = 300
	lab.Run(t, func(l *lab.Lab) {
		k := meet(l.Context(), l, chat)
		defer k.cancel()
		for range all {
			k.news <- strings.Repeat("x", 1024)
		}
		time.Sleep(time.Second)
		if n := k.turns.Load(); n != 129 {
			l.Errorf("the client reads nothing, and Send blocks in turn %d, want 129", n)
		}
		var sent atomic.Int64
		go func() {
			for sent.Load() < all && k.stream.Send(says(strings.Repeat("y", 1024))) == nil {
				sent.Add(1)
			}
		}()
		time.Sleep(time.Hour)
		receiving, holding := pumps()
		if n := k.turns.Load(); n != 129 || receiving != 0 || holding != 1 {
			l.Errorf("an hour later the loop is in turn %d, and %d pumps hold a line, want 129 and 1", n, holding)
		}
		stuck := sent.Load()
		if stuck != 128 {
			l.Errorf("the client's Send took %d lines of 1 KiB, want 128", stuck)
		}
		news, heard := 0, 0
		for news+heard < 2*all {
			if strings.HasPrefix(k.hear(), "heard ") {
				heard++
			} else {
				news++
			}
		}
		l.Logf("Send of news 129 waits: an hour later no line was heard, and the client's own Send took %d of %d; then it reads, gets %d news, and all %d lines are heard", stuck, all, news, heard)
	}, lab.Lasts(2*time.Hour))
}

// The recipe: fill the stream, block two tiny Sends, let the reader drain.
// Each waits for one token in a channel with one place (internal/transport/
// flowcontrol.go, (*writeQuota).get and realReplenish): chapter 21.
func TestASecondSenderHangs(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var returned atomic.Int64
		k := meet(l.Context(), l, func(stream chatServer, _ <-chan string, _ func()) error {
			for range 128 {
				stream.Send(says(strings.Repeat("x", 1024)))
			}
			for _, who := range []string{"a", "b"} { // the listener and the speaker
				go func() {
					stream.Send(says(who))
					returned.Add(1)
				}()
			}
			<-stream.Context().Done()
			return stream.Context().Err()
		})
		defer k.cancel()
		time.Sleep(time.Minute)
		for range 129 {
			k.hear()
		}
		time.Sleep(time.Hour)
		if n := returned.Load(); n != 1 {
			l.Errorf("an hour after the client has read all, %d of 2 Sends have returned, want 1", n)
		}
		l.Logf("an hour after the client has read all, %d of 2 Sends has returned", returned.Load())
	}, lab.Lasts(2*time.Hour))
}

// A select with two ready cases draws. So all 50 news go out in one chat of
// 2^50, and none in any of the 100 once in 2^100.
func TestTheHalfCloseOvertakesNews(t *testing.T) {
	const chats, each = 100, 50
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: func(stream chatServer) error {
			news := make(chan string, each)
			for range each {
				news <- "news"
			}
			return chat(stream, news, sync.OnceFunc(func() { time.Sleep(time.Second) })) // the half-close is here, too
		}})
		sent := 0
		for range chats {
			stream, err := client.Chat(l.Context())
			if err != nil {
				l.Fatal(err)
			}
			stream.CloseSend()
			n := -1
			for ; err == nil; n++ {
				_, err = stream.Recv()
			}
			if !errors.Is(err, io.EOF) || n == each {
				l.Errorf("%d of %d news were sent, then came %v, want fewer and EOF", n, each, err)
			}
			sent += n
		}
		if sent == 0 {
			l.Error("the half-close was first each time")
		}
		l.Logf("%d chats with %d news and the half-close ready: each lost some, %d of %d were sent", chats, each, sent, chats*each)
	})
}
