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

func untilDone(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// call runs publish with a limit of a minute of virtual time.
func call(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient, topic, body string) (id string, err error) {
	l.Helper()
	l.Call("publish", time.Minute, func() { id, err = publish(ctx, client, topic, body) })
	return id, err
}

func TestPublishStoresTheEventAndReturnsItsID(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		store := &bench{}
		client, _ := l.Connect(&server{store: store})
		id, err := call(l.Context(), l, client, "alerts", "deploy done")
		if err != nil {
			l.Fatalf("publish returned the error %v, want none", err)
		}
		if id == "" {
			l.Errorf("publish returned an empty id")
		}
		events := store.stored()
		if len(events) != 1 {
			l.Fatalf("Insert was called %d times for one Publish, want once", len(events))
		}
		if ev := events[0]; ev.GetId() != id || ev.GetTopic() != "alerts" || ev.GetBody() != "deploy done" {
			l.Errorf("publish returned id %q, but the stored event is %s", id, lab.Text(ev))
		}
	})
}

func TestPublishAssignsTheTime(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		store := &bench{}
		client, _ := l.Connect(&server{store: store})
		before := time.Now()
		var resp *feedv1.PublishResponse
		var err error
		l.Call("Publish", time.Minute, func() {
			resp, err = client.Publish(l.Context(), &feedv1.PublishRequest{Topic: "alerts", Body: "deploy done"})
		})
		if err != nil || len(store.stored()) != 1 {
			l.Fatalf("Publish returned %v and stored %d events, want no error and one event", err, len(store.stored()))
		}
		during := func(what string, at *timestamppb.Timestamp) {
			if at == nil {
				l.Errorf("%s has no time", what)
			} else if got := at.AsTime(); got.Before(before) || got.After(time.Now()) {
				l.Errorf("%s has the time %v, want one during the call: %v to %v", what, got, before.UTC(), time.Now().UTC())
			}
		}
		during("the stored event", store.stored()[0].GetAt())
		during("the response", resp.GetAt())
	})
}

func TestEachEventHasItsOwnID(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		store := &bench{}
		client, _ := l.Connect(&server{store: store})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { publish(l.Context(), client, "alerts", "at the same time") })
		}
		wg.Wait()
		for range 20 {
			call(l.Context(), l, client, "alerts", "one after the other")
		}
		seen := map[string]int{}
		for _, ev := range store.stored() {
			seen[ev.GetId()]++
		}
		if len(store.stored()) != 40 {
			l.Fatalf("%d of 40 events were stored", len(store.stored()))
		}
		for id, n := range seen {
			if n > 1 {
				l.Fatalf("%d events have the id %q; 20 came at the same time, 20 one after the other", n, id)
			}
		}
	})
}

func TestAnEmptyTopicIsTheCallersMistake(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		store := &bench{}
		client, _ := l.Connect(&server{store: store})
		id, err := call(l.Context(), l, client, "", "no topic")
		wantCode(l, "for an empty topic", id, err, codes.InvalidArgument)
		if n := len(store.stored()); n > 0 {
			l.Errorf("the event without a topic was stored")
		}
	})
}

func TestAStoreThatFailsIsTheServersFault(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{store: &bench{then: func(context.Context) error { return errors.New("disk of db-7 is full") }}})
		id, err := call(l.Context(), l, client, "alerts", "deploy done")
		wantCode(l, "for a store that fails", id, err, codes.Internal)
		if strings.Contains(status.Convert(err).Message(), "db-7") {
			l.Errorf("the client was told %q: the store's own error is for the server's log, not for clients", status.Convert(err).Message())
		}
	})
}

func wantCode(l *lab.Lab, when, id string, err error, want codes.Code) {
	l.Helper()
	switch {
	case err == nil:
		l.Fatalf("%s publish returned id %q and no error, want code %v", when, id, want)
	case status.Code(err) != want:
		l.Fatalf("%s publish returned code %v (%v), want %v", when, status.Code(err), err, want)
	}
}

func TestPublishGivesUpAfterFiveSeconds(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{store: &bench{then: untilDone}})
		start := time.Now()
		id, err := call(l.Context(), l, client, "alerts", "deploy done")
		if took := time.Since(start); took != 5*time.Second {
			l.Errorf("with a store that hangs publish returned after %v, want 5s", took)
		}
		wantCode(l, "with a store that hangs", id, err, codes.DeadlineExceeded)
	})
}

func TestPublishGivesUpWhenTheCallerAllowsMore(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{store: &bench{then: untilDone}})
		ctx, cancel := context.WithTimeout(l.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		call(ctx, l, client, "alerts", "deploy done")
		if took := time.Since(start); took != 5*time.Second {
			l.Errorf("the caller allows an hour, and publish returned after %v, want 5s", took)
		}
	})
}

func TestTheCallersDeadlineHolds(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{store: &bench{then: untilDone}})
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		start := time.Now()
		id, err := call(ctx, l, client, "alerts", "deploy done")
		if took := time.Since(start); took != time.Second {
			l.Errorf("the caller allows 1s, and publish returned after %v", took)
		}
		wantCode(l, "after the caller's deadline", id, err, codes.DeadlineExceeded)
	})
}

func TestTheCallersCancelHolds(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{store: &bench{then: untilDone}})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		time.AfterFunc(2*time.Second, cancel)
		start := time.Now()
		id, err := call(ctx, l, client, "alerts", "deploy done")
		if took := time.Since(start); took != 2*time.Second {
			l.Errorf("the caller cancelled after 2s, and publish returned after %v", took)
		}
		wantCode(l, "after the caller's cancel", id, err, codes.Canceled)
	})
}

func TestTheHandlerStopsWhenTheCallerIsGone(t *testing.T) {
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
		call(ctx, l, client, "alerts", "deploy done")
		left := time.Now()
		if late := (<-ended).Sub(left); late > lab.Latency {
			l.Errorf("Insert was still busy %v after the caller had left: it was not given the context of the call", late.Round(time.Millisecond))
		}
	})
}

func TestPublishEndsWhenTheNetworkDies(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(&server{store: &bench{then: untilDone}})
		time.AfterFunc(time.Second, link.Cut)
		start := time.Now()
		id, err := call(l.Context(), l, client, "alerts", "deploy done")
		if took := time.Since(start); took > 5*time.Second {
			l.Errorf("the network was cut after 1s, and publish returned after %v, want at most 5s", took)
		}
		if err == nil {
			l.Errorf("the network was cut, and publish returned id %q and no error", id)
		}
	})
}
