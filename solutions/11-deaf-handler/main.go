// This program serves your Watch on loopback, lets clients come and go, and
// prints what they leave behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A broker hands out subscriptions. Handlers may call Subscribe at the same
// time.
type broker interface {
	Subscribe(topic string) *Subscription
}

// A Subscription is a place at a topic.
type Subscription struct {
	// C delivers the topic's events in order. It has no buffer: a publisher
	// waits until every subscription has taken the event or was closed. C is
	// closed when the topic has ended, and by Close.
	C <-chan *feedv1.Event

	close func()
}

// Close gives the place back. It may be called from any goroutine, also while
// another one waits for C, and it does not wait. It is to be called once, also
// when the topic has ended: a second call panics.
func (s *Subscription) Close() { s.close() }

// A hub is a broker.
type hub struct {
	mu    sync.Mutex
	seats map[*seat]bool // that were not closed
}

// A seat is a subscription as the hub sees it.
type seat struct {
	topic   string
	events  chan *feedv1.Event
	over    chan struct{} // closed: the publisher need not wait
	once    sync.Once
	sending chan struct{} // holds a token while a publisher may send to events
}

func (h *hub) Subscribe(topic string) *Subscription {
	s := &seat{topic: topic, events: make(chan *feedv1.Event), over: make(chan struct{}), sending: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seats == nil {
		h.seats = map[*seat]bool{}
	}
	h.seats[s] = true
	return &Subscription{C: s.events, close: func() { h.leave(s) }}
}

func (h *hub) leave(s *seat) {
	h.mu.Lock()
	taken := h.seats[s]
	delete(h.seats, s)
	h.mu.Unlock()
	if !taken {
		panic("Close was called twice")
	}
	s.end()
}

// publish returns when every subscription of the event's topic has taken it
// or was closed.
func (h *hub) publish(ev *feedv1.Event) {
	for _, s := range h.at(ev.GetTopic()) {
		select {
		case s.sending <- struct{}{}:
		case <-s.over:
			continue
		}
		select {
		case s.events <- ev:
		case <-s.over:
		}
		<-s.sending
	}
}

// end ends the topic for those who have a place at it.
func (h *hub) end(topic string) {
	for _, s := range h.at(topic) {
		s.end()
	}
}

func (s *seat) end() {
	s.once.Do(func() {
		close(s.over)
		s.sending <- struct{}{} // and nobody sends any more
		close(s.events)
	})
}

// at returns the seats at a topic.
func (h *hub) at(topic string) (seats []*seat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.seats {
		if s.topic == topic {
			seats = append(seats, s)
		}
	}
	return seats
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
	client := feedv1.NewFeedServiceClient(conn)

	for n := 1; n <= 5 && ctx.Err() == nil; n++ {
		stay, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		stream, err := client.Watch(stay, &feedv1.WatchRequest{Topic: "silent"})
		if err == nil {
			_, err = stream.Recv()
		}
		cancel()
		time.Sleep(100 * time.Millisecond) // for the handler to end
		fmt.Printf("client %d has left (%v): %d places are taken at the silent topic\n", n, err, len(h.at("silent")))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	h.publish(&feedv1.Event{Id: "1", Topic: "silent"})
	time.Sleep(100 * time.Millisecond)
	fmt.Printf("the topic had an event: %d places\n", len(h.at("silent")))

	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys"})
	if err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond) // for the handler to subscribe
	go func() {
		for _, body := range []string{"started", "halfway", "done"} {
			h.publish(&feedv1.Event{Topic: "deploys", Body: body})
		}
		h.end("deploys")
	}()
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		fmt.Printf("client: %s\n", ev.GetBody())
	}
	time.Sleep(100 * time.Millisecond)
	fmt.Printf("the topic has ended: %d places are taken at it\n", len(h.at("deploys")))
	return nil
}
