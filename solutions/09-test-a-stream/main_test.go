package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// network is bufconn whose connections can be cut.
type network struct {
	*bufconn.Listener
	mu   sync.Mutex
	ends []net.Conn
	down bool
}

func (n *network) DialContext(ctx context.Context) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return nil, errors.New("the network is down")
	}
	conn, err := n.Listener.DialContext(ctx)
	if err == nil {
		n.ends = append(n.ends, conn)
	}
	return conn, err
}

// cut ends all connections. Whether there will be others depends on down.
func (n *network) cut(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
	for _, end := range n.ends {
		end.Close()
	}
	n.ends = nil
}

// open reports whether a connection is neither cut nor closed.
func (n *network) open() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.ends, func(end net.Conn) bool {
		_, err := end.Write([]byte{0})
		return err == nil
	})
}

// A client does what leaks has to judge.
type client struct {
	*lab.Lab
	net      *network
	feed     feedv1.FeedServiceClient
	end      chan bool        // closed when leaks has returned: ends what is left
	conn     *grpc.ClientConn // closed then
	endOlder func()           // ends a goroutine that was there before leaks was called
}

// judge wants an error from leaks if left says what a client leaves that does
// what do does, and nil if it says nothing.
func judge(t *testing.T, what, left string, do func(*client)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		c := &client{Lab: l, net: &network{Listener: bufconn.Listen(1 << 20)}, end: make(chan bool)}
		defer c.cleanUp()
		older, endOlder := context.WithCancel(context.Background())
		c.endOlder = endOlder
		go func() { <-older.Done() }()
		var used atomic.Int32
		var done atomic.Value // time.Time
		var found error
		l.Call("leaks, for a client that "+what+",", 2*time.Hour, func() {
			found = leaks(c.net, service{end: c.end}, func(feed feedv1.FeedServiceClient) {
				used.Add(1)
				c.feed = feed
				do(c)
				done.Store(time.Now())
			})
		})
		returned, ok := done.Load().(time.Time)
		took := time.Since(returned)
		time.Sleep(time.Second) // for what is closing
		switch {
		case used.Load() != 1:
			l.Errorf("leaks called use %d times, want once", used.Load())
		case !ok:
			l.Errorf("leaks returned before use had, for a client that %s", what)
		case left != "" && found == nil:
			l.Errorf("leaks returned nil, want an error, for a client that %s: %s", what, left)
		case left == "" && found != nil:
			l.Errorf("leaks returned an error, want nil, for a client that %s: nothing was left but what keeps the connection going. It said:\n%s", what, brief(found))
		case took > time.Minute:
			l.Errorf("leaks returned %v after use had, want at most a minute", took.Round(time.Second))
		case c.net.open():
			l.Errorf("leaks returned and its connection was still open, for a client that %s. What leaks has opened it closes, whatever it returns", what)
		}
	}, lab.Lasts(3*time.Hour))
}

// cleanUp ends what the client and its handler have left.
func (c *client) cleanUp() {
	close(c.end)
	c.endOlder()
	if c.conn != nil {
		c.conn.Close()
	}
}

// brief is what fits of an error: of goroutine dumps the line that says in
// which function each one waits.
func brief(err error) string {
	var tops, lines []string
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		lines = append(lines, line)
		if _, top, ok := strings.Cut(line, ", with "); ok {
			tops = append(tops, "a goroutine with "+strings.TrimSuffix(top, ":"))
		}
	}
	if len(tops) == 0 {
		tops = lines
	}
	slices.Sort(tops)
	if n := len(tops); n > 3 {
		tops = append(tops[:3], fmt.Sprintf("and %d more", n-3))
	}
	return strings.Join(tops, "\n")
}

// watch receives n messages, or what comes in their place.
func (c *client) watch(ctx context.Context, topic string, n int) {
	stream, err := c.feed.Watch(ctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err != nil {
		c.Errorf("leaks gave use a client whose Watch returned %v, want a stream of svc", err)
		return
	}
	for range n {
		stream.Recv()
	}
}

// cancel watches for an event and cancels.
func (c *client) cancel(topic string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c.watch(ctx, topic, 1)
}

// leave watches for an event and does nothing more.
func (c *client) leave() { c.watch(context.Background(), "alerts", 1) }

// startGoroutine starts one that waits for nothing that ever comes.
func (c *client) startGoroutine() { go func() { <-c.end }() }

// cut cuts the connection, after an event, and reads to the end of the stream.
func (c *client) cut(down bool) {
	c.Helper()
	time.AfterFunc(time.Second, func() { c.net.cut(down) })
	c.watch(context.Background(), "alerts", 2)
	time.Sleep(time.Second)
}

// service is what the clients call.
type service struct {
	feedv1.UnimplementedFeedServiceServer
	end chan bool
}

func (service) Publish(context.Context, *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	return &feedv1.PublishResponse{}, nil
}

func (s service) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	if err := stream.Send(&feedv1.Event{Id: "1", Topic: req.GetTopic()}); err != nil {
		return err
	}
	switch req.GetTopic() {
	case "over":
		return nil
	case "secret":
		return status.Error(codes.PermissionDenied, "the topic is secret")
	case "deaf":
		<-s.end
		return nil
	case "helped":
		go func() { <-s.end }()
	}
	<-stream.Context().Done()
	if req.GetTopic() == "slow" {
		time.Sleep(250 * time.Millisecond)
	}
	return stream.Context().Err()
}

// Chat ends when its client has half-closed.
func (s service) Chat(stream grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return nil
		}
	}
}

func TestAStreamThatHasEndedIsNoLeak(t *testing.T) {
	judge(t, "cancels its stream", "", func(c *client) { c.cancel("alerts") })
	judge(t, "reads its stream to the end", "", func(c *client) { c.watch(context.Background(), "over", 2) })
	judge(t, "reads a failing stream to the end", "", func(c *client) { c.watch(context.Background(), "secret", 2) })
	judge(t, "reads until its deadline has passed", "", func(c *client) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.watch(ctx, "alerts", 2)
	})
	judge(t, "cancels 100 streams", "", func(c *client) {
		for range 100 {
			c.cancel("alerts")
		}
	})
}

func TestACallWithoutAStreamIsNoLeak(t *testing.T) {
	judge(t, "calls Publish", "", func(c *client) {
		if _, err := c.feed.Publish(context.Background(), &feedv1.PublishRequest{}); err != nil {
			c.Errorf("leaks gave use a client whose Publish returned %v, want svc's response", err)
		}
	})
	judge(t, "does nothing at all", "", func(*client) {})
}

func TestWhatEndsIn250MillisecondsIsNoLeak(t *testing.T) {
	judge(t, "cancels its stream, whose handler returns 250ms later", "", func(c *client) { c.cancel("slow") })
	judge(t, "starts a goroutine that ends 250ms later", "", func(*client) { go time.Sleep(250 * time.Millisecond) })
}

func TestABrokenConnectionIsNoLeak(t *testing.T) {
	judge(t, "sees its stream end when the network breaks", "", func(c *client) { c.cut(true) })
	judge(t, "sees its stream end when the network breaks, and cannot open another", "", func(c *client) {
		c.cut(true)
		if _, err := c.feed.Watch(context.Background(), &feedv1.WatchRequest{}); status.Code(err) != codes.Unavailable {
			c.Errorf("leaks gave use a client whose Watch returned %v while the network was down, want Unavailable", err)
		}
	})
}

func TestAReconnectIsNoLeak(t *testing.T) {
	judge(t, "cancels another stream after a reconnect", "", func(c *client) {
		c.cut(false)
		c.cancel("alerts")
	})
}

func TestAnIdleConnectionIsNoLeak(t *testing.T) {
	judge(t, "cancels its stream and is idle for 45 minutes", "", func(c *client) {
		c.cancel("alerts")
		time.Sleep(45 * time.Minute)
	})
	judge(t, "cancels another stream after 45 idle minutes", "", func(c *client) {
		c.cancel("alerts")
		time.Sleep(45 * time.Minute)
		c.cancel("alerts")
	})
}

const streamLeft = "its stream was still open on both sides"

func TestAnAbandonedStreamIsALeak(t *testing.T) {
	judge(t, "takes an event and leaves its stream", streamLeft, (*client).leave)
	judge(t, "opens a stream and leaves it", streamLeft, func(c *client) { c.watch(context.Background(), "alerts", 0) })
	judge(t, "cancels 99 streams and leaves one", streamLeft, func(c *client) {
		c.leave()
		for range 99 {
			c.cancel("alerts")
		}
	})
}

func TestAStreamThatOnlyTheServerHasEndedIsALeak(t *testing.T) {
	const left = "the server had ended the stream, the client's side was still open"
	judge(t, "takes the only event of a stream and not the io.EOF after it", left, func(c *client) { c.watch(context.Background(), "over", 1) })
	judge(t, "half-closes its stream and leaves it", left, func(c *client) {
		stream, err := c.feed.Chat(context.Background())
		if err != nil {
			c.Errorf("leaks gave use a client whose Chat returned %v, want a stream of svc", err)
			return
		}
		stream.CloseSend()
	})
}

func TestAGoroutineOfTheClientIsALeak(t *testing.T) {
	judge(t, "leaves a goroutine that waits for a channel", "the goroutine was still there", (*client).startGoroutine)
	judge(t, "leaves a goroutine that waits in Recv", "the goroutine was still there, and its stream", func(c *client) {
		go c.watch(context.Background(), "alerts", 2)
		time.Sleep(time.Second)
	})
	// Close ends this one, and between two calls no RPC is open.
	judge(t, "leaves a goroutine that calls Publish again and again", "the goroutine went on until the connection was closed", func(c *client) {
		go func() {
			for err := error(nil); err == nil; {
				_, err = c.feed.Publish(context.Background(), &feedv1.PublishRequest{})
				select {
				case <-c.end:
					return
				case <-time.After(77 * time.Millisecond):
				}
			}
		}()
	})
}

func TestWhatTheServerLeavesIsALeak(t *testing.T) {
	judge(t, "cancels its stream, whose handler does not listen", "the handler still ran", func(c *client) { c.cancel("deaf") })
	judge(t, "cancels its stream, whose handler has started a goroutine", "that goroutine was still there", func(c *client) { c.cancel("helped") })
}

func TestAForgottenConnectionIsALeak(t *testing.T) {
	judge(t, "forgets a connection that it has made itself", "it was still there", func(c *client) {
		conn, err := grpc.NewClient("passthrough:///other", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.net.DialContext(ctx) }))
		if err != nil {
			c.Fatal(err)
		}
		c.conn = conn
	})
}

func TestAReconnectHidesNoLeak(t *testing.T) {
	judge(t, "leaves its stream, which breaks with the connection, and cancels another after the reconnect",
		"the client's side of the first stream was still open", func(c *client) {
			c.leave()
			c.cut(false)
			c.cancel("alerts")
		})
}

func TestAnIdleConnectionHidesNoLeak(t *testing.T) {
	judge(t, "leaves a goroutine and is idle for 45 minutes", "the goroutine was still there", func(c *client) {
		c.startGoroutine()
		time.Sleep(45 * time.Minute)
	})
}

func TestTheEndOfAnotherGoroutineHidesNoLeak(t *testing.T) {
	judge(t, "leaves a goroutine, while one ends that was there before leaks was called", "the goroutine was still there", func(c *client) {
		c.startGoroutine()
		c.endOlder()
	})
}
