// This program serves your Chat on loopback. A client joins and leaves topics,
// and the program prints what the client hears, and how late.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]

// command reads what a client says: "/join x" or "/leave x". The topic is what
// follows the first space. Anything else is an error with code InvalidArgument.
func command(msg *feedv1.ChatMessage) (verb, topic string, err error) {
	verb, topic, _ = strings.Cut(msg.GetText(), " ")
	if verb != "/join" && verb != "/leave" || topic == "" {
		return "", "", status.Errorf(codes.InvalidArgument, "%q is neither /join nor /leave and a topic", msg.GetText())
	}
	return verb, topic, nil
}

// says is the message in which an event goes out.
func says(ev *feedv1.Event) *feedv1.ChatMessage {
	return &feedv1.ChatMessage{From: ev.GetTopic(), Text: ev.GetBody()}
}

// A broker hands out subscriptions. Subscribe may be called from any goroutine.
type broker interface {
	Subscribe(topic string) *Subscription
}

// A Subscription is a place at a topic.
type Subscription struct {
	// C delivers in order what the broker accepted for this subscription. It
	// holds 256 events: a publisher never waits, and what finds no room is not
	// accepted. C is closed when the topic ends, and by Close. What was
	// accepted before that can still be received.
	C <-chan *feedv1.Event

	close func()
}

// Close gives the place back. It may be called from any goroutine and does not
// wait. It is to be called once, also when the topic has ended: a second call
// panics.
func (s *Subscription) Close() { s.close() }

// A hub is a broker.
type hub struct {
	mu    sync.Mutex
	seats map[*seat]bool // that were not closed
}

// A seat is a subscription as the hub sees it.
type seat struct {
	topic  string
	events chan *feedv1.Event
	over   bool // events is closed
}

func (s *seat) end() {
	if !s.over {
		s.over = true
		close(s.events)
	}
}

func (h *hub) Subscribe(topic string) *Subscription {
	s := &seat{topic: topic, events: make(chan *feedv1.Event, 256)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seats == nil {
		h.seats = map[*seat]bool{}
	}
	h.seats[s] = true
	return &Subscription{C: s.events, close: func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.seats[s] {
			panic("Close was called twice")
		}
		delete(h.seats, s)
		s.end()
	}}
}

// publish returns how many subscriptions have accepted the event.
func (h *hub) publish(ev *feedv1.Event) (accepted int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.seats {
		if s.topic != ev.GetTopic() || s.over {
			continue
		}
		select {
		case s.events <- ev:
			accepted++
		default:
		}
	}
	return accepted
}

// end ends the topic for those who have a place at it.
func (h *hub) end(topic string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.seats {
		if s.topic == topic {
			s.end()
		}
	}
}

// places returns how many subscriptions are open.
func (h *hub) places() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.seats)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	h := &hub{}
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, &server{broker: h})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, err := feedv1.NewFeedServiceClient(conn).Chat(ctx)
	if err != nil {
		return err
	}
	say := func(text string) {
		time.Sleep(200 * time.Millisecond)
		stream.Send(&feedv1.ChatMessage{From: "client", Text: text}) // if this fails, Recv says why
		time.Sleep(200 * time.Millisecond)
		fmt.Printf("client: said %q; subscriptions: %d\n", text, h.places())
	}
	publish := func(topic string) {
		now := timestamppb.Now()
		n := h.publish(&feedv1.Event{Topic: topic, Body: now.AsTime().Format(time.RFC3339Nano), At: now})
		fmt.Printf("an event of %q was published, and accepted by %d\n", topic, n)
	}
	go func() {
		say("/join alerts")
		publish("alerts")
		time.Sleep(time.Second)
		say("/join deploys")
		publish("alerts")
		publish("deploys")
		say("/leave alerts")
		publish("alerts")
		for range 30 {
			h.publish(&feedv1.Event{Topic: "deploys", Body: time.Now().Format(time.RFC3339Nano)})
		}
		fmt.Println("30 events of \"deploys\" were published, and the client half-closes")
		stream.CloseSend()
	}()
	n := 0
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			fmt.Printf("client: io.EOF after %d events; subscriptions: %d\n", n, h.places())
			return nil
		}
		if err != nil {
			fmt.Printf("client: %v after %d events; subscriptions: %d\n", err, n, h.places())
			return nil
		}
		at, err := time.Parse(time.RFC3339Nano, msg.GetText())
		if err != nil {
			return fmt.Errorf("event: %w", err)
		}
		if n++; n <= 3 {
			fmt.Printf("client: an event of %q, %v after it was published\n", msg.GetFrom(), time.Since(at).Round(time.Millisecond))
		}
	}
}
