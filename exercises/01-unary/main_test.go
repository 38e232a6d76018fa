package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// bench is a store that takes a while, keeps what it got, and does on top of
// that what the test says.
type bench struct {
	then func(context.Context) error

	mu     sync.Mutex
	events []*feedv1.Event
}

func (b *bench) Insert(ctx context.Context, ev *feedv1.Event) error {
	b.mu.Lock()
	b.events = append(b.events, ev)
	b.mu.Unlock()
	time.Sleep(time.Millisecond)
	if b.then != nil {
		return b.then(ctx)
	}
	return nil
}

func (b *bench) stored() []*feedv1.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.events
}

// The handler, called by a client that makes no mistakes.

// request calls Publish with a bound that only a handler that hangs reaches.
func request(l *lab.Lab, store store, topic, body string) (*feedv1.PublishResponse, error) {
	l.Helper()
	client, _ := l.Connect(&server{store: store})
	var resp *feedv1.PublishResponse
	var err error
	l.Call("the handler Publish", time.Minute, func() {
		resp, err = client.Publish(l.Context(), &feedv1.PublishRequest{Topic: topic, Body: body})
	})
	return resp, err
}

func TestPublishStoresTheEventAndReturnsItsID(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		store := &bench{}
		resp, err := request(l, store, "alerts", "deploy done")
		if err != nil {
			l.Fatalf("Publish failed with %v, want success", err)
		}
		if resp.GetId() == "" {
			l.Errorf("Publish answered with an empty id")
		}
		events := store.stored()
		if len(events) != 1 {
			l.Fatalf("Publish called Insert %d times, want once", len(events))
		}
		if ev := events[0]; ev.GetId() != resp.GetId() || ev.GetTopic() != "alerts" || ev.GetBody() != "deploy done" {
			l.Errorf("Publish answered with id %q for alerts: \"deploy done\", but stored %s", resp.GetId(), lab.Text(ev))
		}
	})
}

func TestPublishAssignsTheTime(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		store := &bench{}
		before := time.Now()
		resp, err := request(l, store, "alerts", "deploy done")
		if err != nil || len(store.stored()) != 1 {
			l.Fatalf("Publish returned error %v and stored %d events, want no error and one event", err, len(store.stored()))
		}
		during := func(what string, at *timestamppb.Timestamp) {
			if at == nil {
				l.Errorf("%s has no time", what)
			} else if got := at.AsTime(); got.Before(before) || got.After(time.Now()) {
				l.Errorf("%s has the time %v, want one during the call: %v to %v", what, got, before.UTC(), time.Now().UTC())
			}
		}
		during("the event that Publish stored", store.stored()[0].GetAt())
		during("the response of Publish", resp.GetAt())
		if stored := store.stored()[0].GetAt(); !resp.GetAt().AsTime().Equal(stored.AsTime()) {
			l.Errorf("Publish stored the time %v and answered with %v, want the same", stored.AsTime(), resp.GetAt().AsTime())
		}
	})
}

func TestEachEventHasItsOwnID(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		store := &bench{}
		client, _ := l.Connect(&server{store: store})
		ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
		defer cancel()
		req := &feedv1.PublishRequest{Topic: "alerts", Body: "deploy done"}
		var wg sync.WaitGroup
		for range 20 { // at the same time
			wg.Go(func() { client.Publish(ctx, req) })
		}
		wg.Wait()
		for range 20 { // one after the other
			client.Publish(ctx, req)
		}
		if n := len(store.stored()); n != 40 {
			l.Fatalf("of 40 calls of Publish, 20 of them at the same time, %d stored an event", n)
		}
		seen := map[string]int{}
		for _, ev := range store.stored() {
			if seen[ev.GetId()]++; seen[ev.GetId()] > 1 {
				l.Fatalf("Publish gave several events the same id; 20 calls came at the same time and 20 one after the other")
			}
		}
	})
}

func TestTheCallerIsBlamedForAnEmptyTopic(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		store := &bench{}
		_, err := request(l, store, "", "no topic")
		if got := status.Code(err); got != codes.InvalidArgument {
			l.Errorf("for an empty topic Publish answered with code %v (%q), want the code for a request that is wrong by itself",
				got, status.Convert(err).Message())
		}
		if len(store.stored()) > 0 {
			l.Errorf("Publish stored the event without a topic")
		}
	})
}

func TestTheServerIsBlamedForAStoreThatFails(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		_, err := request(l, &bench{then: func(context.Context) error { return errors.New("disk of db-7 is full") }}, "alerts", "deploy done")
		if got := status.Code(err); got != codes.Internal {
			l.Errorf("for a store that fails Publish answered with code %v (%q), want the code for an error inside the server",
				got, status.Convert(err).Message())
		}
		if strings.Contains(status.Convert(err).Message(), "db-7") {
			l.Errorf("Publish told the client %q: the store's own words are for the server's log", status.Convert(err).Message())
		}
	})
}

func TestTheHandlerStopsWhenItsCallerIsGone(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		ended := make(chan time.Time, 1)
		client, _ := l.Connect(&server{store: &bench{then: func(ctx context.Context) error {
			defer func() { ended <- time.Now() }()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Minute):
				return nil
			}
		}}})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		time.AfterFunc(2*time.Second, cancel)
		client.Publish(ctx, &feedv1.PublishRequest{Topic: "alerts", Body: "deploy done"})
		left := time.Now()
		select {
		case at := <-ended:
			if late := at.Sub(left); late > lab.Latency {
				l.Errorf("Publish was still inside Insert %v after its caller had left: Insert has not learned of it", late.Round(time.Second))
			}
		case <-time.After(2 * time.Minute):
			l.Errorf("Publish has not called Insert")
		}
	})
}

// The client, against a server that does what the test says.

type scripted struct {
	feedv1.UnimplementedFeedServiceServer
	publish func(context.Context, *feedv1.PublishRequest) (*feedv1.PublishResponse, error)
}

func (s scripted) Publish(ctx context.Context, req *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	return s.publish(ctx, req)
}

// hanging is a server that answers when nobody waits any more.
func hanging() scripted {
	return scripted{publish: func(ctx context.Context, _ *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
}

// call runs publish and returns how long it took.
func call(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient) (id string, took time.Duration, err error) {
	l.Helper()
	start := time.Now()
	l.Call("publish", time.Minute, func() { id, err = publish(ctx, client, "alerts", "deploy done") })
	return id, time.Since(start), err
}

func TestPublishSendsTheEventAndReturnsTheID(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var got []*feedv1.PublishRequest
		client, _ := l.Connect(scripted{publish: func(_ context.Context, req *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
			got = append(got, req)
			return &feedv1.PublishResponse{Id: "id-7"}, nil
		}})
		id, _, err := call(l.Context(), l, client)
		if id != "id-7" || err != nil {
			l.Errorf("the server answered with id %q, and publish returned %q and error %v", "id-7", id, err)
		}
		if len(got) != 1 || got[0].GetTopic() != "alerts" || got[0].GetBody() != "deploy done" {
			l.Errorf("publish(ctx, client, \"alerts\", \"deploy done\") sent %d requests, want one with that topic and body", len(got))
		}
	})
}

func TestTheStatusOfTheServerReachesTheCaller(t *testing.T) {
	for _, want := range []codes.Code{codes.InvalidArgument, codes.Internal, codes.Unavailable} {
		lab.Run(t, func(l *lab.Lab) {
			calls := 0
			client, _ := l.Connect(scripted{publish: func(context.Context, *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
				calls++
				return nil, status.Error(want, "topic alerts is closed")
			}})
			id, _, err := call(l.Context(), l, client)
			if status.Code(err) != want || !strings.Contains(err.Error(), "topic alerts is closed") {
				l.Errorf("the server answered with code %v (\"topic alerts is closed\"), and publish returned id %q and error %v, which has code %v",
					want, id, err, status.Code(err))
			}
			if calls != 1 {
				l.Errorf("publish sent the event %d times; who may send it again is the caller's decision", calls)
			}
		})
	}
}

func TestPublishGivesUpAfterFiveSeconds(t *testing.T) {
	for _, tt := range []struct {
		callers string
		allows  time.Duration
	}{{"no deadline", 0}, {"an hour", time.Hour}} {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(hanging())
			ctx := l.Context()
			if tt.allows > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.allows)
				defer cancel()
			}
			_, took, err := call(ctx, l, client)
			if took != 5*time.Second || status.Code(err) != codes.DeadlineExceeded {
				l.Errorf("with a server that hangs and a caller that sets %s, publish returned %v after %v, want DeadlineExceeded after 5s",
					tt.callers, err, took)
			}
		})
	}
}

func TestTheDeadlineOfTheCallerHolds(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(hanging())
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		if _, took, err := call(ctx, l, client); took != time.Second || status.Code(err) != codes.DeadlineExceeded {
			l.Errorf("the caller allows 1s, and publish returned %v after %v, want DeadlineExceeded after 1s", err, took)
		}
	})
}

func TestTheCancelOfTheCallerHolds(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(hanging())
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		time.AfterFunc(2*time.Second, cancel)
		if _, took, err := call(ctx, l, client); took != 2*time.Second || status.Code(err) != codes.Canceled {
			l.Errorf("the caller cancelled after 2s, and publish returned %v after %v, want Canceled after 2s", err, took)
		}
	})
}

func TestPublishEndsWhenTheNetworkDies(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(hanging())
		time.AfterFunc(time.Second, link.Cut)
		id, took, err := call(l.Context(), l, client)
		if took > 5*time.Second {
			l.Errorf("the network was cut after 1s, and publish returned after %v, want at most 5s", took)
		}
		if status.Code(err) != codes.Unavailable {
			l.Errorf("the network was cut, and publish returned id %q and error %v, want gRPC's own status, code Unavailable", id, err)
		}
	})
}
