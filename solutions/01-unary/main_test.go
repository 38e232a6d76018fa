package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// bench is a store that keeps what it got as it was at that moment, and does
// on top of that what the test says.
type bench struct {
	then func(context.Context) error

	mu     sync.Mutex
	events []*feedv1.Event
}

func (b *bench) Insert(ctx context.Context, ev *feedv1.Event) error {
	b.mu.Lock()
	b.events = append(b.events, proto.CloneOf(ev))
	b.mu.Unlock()
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
func request(l *lab.Lab, store store, topic, body string, opts ...grpc.CallOption) (*feedv1.PublishResponse, error) {
	l.Helper()
	client, _ := l.Connect(&server{store: store})
	var resp *feedv1.PublishResponse
	var err error
	l.Call("the handler Publish", time.Minute, func() {
		resp, err = client.Publish(l.Context(), &feedv1.PublishRequest{Topic: topic, Body: body}, opts...)
	})
	return resp, err
}

func TestPublishStoresTheEventAndReturnsItsID(t *testing.T) {
	for _, sent := range []struct{ topic, body string }{
		{"alerts", "deploy done"},
		{"alerts", ""},
		{" alerts", "deploy done\n"},
	} {
		lab.Run(t, func(l *lab.Lab) {
			store := &bench{}
			resp, err := request(l, store, sent.topic, sent.body)
			if err != nil {
				l.Fatalf("for topic %q and body %q Publish failed with %v, want success", sent.topic, sent.body, err)
			}
			if resp.GetId() == "" {
				l.Errorf("Publish answered with an empty id")
			}
			events := store.stored()
			if len(events) != 1 {
				l.Fatalf("Publish called Insert %d times, want once", len(events))
			}
			if ev := events[0]; ev.GetId() != resp.GetId() || ev.GetTopic() != sent.topic || ev.GetBody() != sent.body {
				l.Errorf("for topic %q and body %q Publish answered with id %q, but stored %s",
					sent.topic, sent.body, resp.GetId(), lab.Text(ev))
			}
		})
	}
}

func TestPublishAssignsTheTime(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		time.Sleep(7*time.Minute + 12345*time.Millisecond) // a bubble begins on a full hour, where rounding does not show
		store := &bench{then: func(context.Context) error {
			time.Sleep(time.Millisecond)
			return nil
		}}
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
		if l.Failed() {
			return
		}
		if stored := store.stored()[0].GetAt(); !resp.GetAt().AsTime().Equal(stored.AsTime()) {
			l.Errorf("Publish stored the time %v and answered with %v, want the same", stored.AsTime(), resp.GetAt().AsTime())
		}
	})
}

// publishTo calls the handler as a function, for calls that need no network.
// As in gRPC, the handler's context ends with the call.
func publishTo(l *lab.Lab, s *server, topic string) {
	l.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l.Call("the handler Publish", time.Minute, func() {
		s.Publish(ctx, &feedv1.PublishRequest{Topic: topic, Body: "deploy done"})
	})
}

var topics = []string{"alerts", "deploys"}

// together makes 20 calls that are inside Insert at the same time: each begins
// when the one before is there. If one waits for another's Insert, together
// makes no more and says at which line it waits.
func together(l *lab.Lab) (events []*feedv1.Event, waitsAt string) {
	l.Helper()
	release := make(chan struct{})
	store := &bench{then: func(context.Context) error {
		<-release
		return nil
	}}
	s := &server{store: store}
	var wg sync.WaitGroup
	for i := range 20 {
		var returned atomic.Bool
		wg.Go(func() {
			defer returned.Store(true)
			publishTo(l, s, topics[i%2])
		})
		arrived := func() bool { return len(store.stored()) > i || returned.Load() }
		for patience := time.Now().Add(time.Second); waitsAt == ""; {
			l.Settle()
			if arrived() {
				break
			}
			if l.LockWanted() || time.Now().After(patience) {
				waitsAt = outside()
			} else {
				time.Sleep(time.Millisecond)
			}
		}
		if waitsAt != "" {
			break
		}
	}
	close(release)
	wg.Wait()
	return store.stored(), waitsAt
}

var inAnswer = regexp.MustCompile(`answer\.go:\d+`)

// outside returns the line of answer.go at which a call waits that is not inside
// Insert.
func outside() string {
	dump := make([]byte, 1<<20)
	for g := range strings.SplitSeq(string(dump[:runtime.Stack(dump, true)]), "\n\n") {
		if line := inAnswer.FindString(g); line != "" && !strings.Contains(g, "(*bench).Insert") {
			return line
		}
	}
	return "a line that is not in answer.go"
}

func TestCallsRunAtTheSameTime(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		events, waitsAt := together(l)
		if waitsAt != "" {
			l.Fatalf("a call of Publish waits at %s while another is inside Insert: no call may wait for another's Insert", waitsAt)
		}
		if len(events) != 20 {
			l.Errorf("of 20 calls of Publish at the same time, %d stored an event", len(events))
		}
	})
}

func TestEachEventHasItsOwnID(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		events, _ := together(l)
		distinct(l, "at the same time", events)

		store := &bench{}
		s := &server{store: store}
		const calls = 10_000
		for i := range calls {
			if publishTo(l, s, topics[i%2]); i%1000 == 0 {
				runtime.GC() // an address is no id: it is given out again
			}
		}
		if n := len(store.stored()); n != calls {
			l.Fatalf("of %d calls of Publish, %d stored an event", calls, n)
		}
		distinct(l, "one after the other", store.stored())
	})
	// For the race detector alone. Whether two calls meet between two steps is
	// up to the scheduler, so nobody looks at these ids.
	lab.OverTCP(t, func(l *lab.Lab) {
		s := &server{store: &bench{}}
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				<-start
				publishTo(l, s, topics[i%2])
			})
		}
		close(start)
		wg.Wait()
	})
}

// distinct fails the test if two events have one id.
func distinct(l *lab.Lab, how string, events []*feedv1.Event) {
	l.Helper()
	first := map[string]int{}
	for i, ev := range events {
		j, found := first[ev.GetId()]
		if found {
			l.Fatalf("of %d calls %s, call %d (topic %s) and call %d (topic %s) got the same id, %q",
				len(events), how, j+1, events[j].GetTopic(), i+1, ev.GetTopic(), ev.GetId())
		}
		first[ev.GetId()] = i
	}
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
	for _, failure := range []error{
		errors.New("raid6 of db-7 is degraded"),
		status.Error(codes.NotFound, "no such row in db-7"),
		fmt.Errorf("db-7: %w", context.DeadlineExceeded),
		fmt.Errorf("db-7: %w", context.Canceled),
	} {
		lab.Run(t, func(l *lab.Lab) {
			store := &bench{then: func(context.Context) error { return failure }}
			var header, trailer metadata.MD
			_, err := request(l, store, "alerts", "deploy done", grpc.Header(&header), grpc.Trailer(&trailer))
			st := status.Convert(err)
			if st.Code() != codes.Internal {
				l.Errorf("for a store that fails with %q Publish answered with code %v (%q), want the code for an error inside the server",
					failure, st.Code(), st.Message())
			}
			details, _ := proto.Marshal(st.Proto())
			// As a map: an MD hides from fmt what it holds.
			for _, part := range []struct{ name, text string }{
				{"the text", st.Message()},
				{"the details", string(details)},
				{"the header", fmt.Sprint(map[string][]string(header))},
				{"the trailer", fmt.Sprint(map[string][]string(trailer))},
			} {
				for _, word := range []string{"db-7", "raid6", "degraded"} {
					if strings.Contains(strings.ToLower(part.text), word) {
						l.Fatalf("the store failed with %q, and the client reads %q in %s of the answer: the store's own words are for the server's log",
							failure, word, part.name)
					}
				}
			}
			if n := len(store.stored()); n != 1 {
				l.Errorf("the store failed, and Publish called Insert %d times, want once: an Insert that failed may have stored the event", n)
			}
		})
		if t.Failed() {
			return
		}
	}
}

func TestTheHandlerStopsWhenItsCallerIsGone(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		ended := make(chan time.Time, 1)
		client, _ := l.Connect(&server{store: &bench{then: func(ctx context.Context) error {
			defer func() {
				select {
				case ended <- time.Now():
				default: // the first counts
				}
			}()
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

// described is an error with its code: two errors may have one text, and only
// one of them a code.
func described(err error) string {
	switch _, ok := status.FromError(err); {
	case err == nil:
		return "no error"
	case !ok:
		return fmt.Sprintf("an error without a code (%q)", err)
	default:
		return fmt.Sprintf("an error with code %v (%q)", status.Code(err), err)
	}
}

func TestPublishSendsTheEventAndReturnsTheID(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var got []*feedv1.PublishRequest
		client, _ := l.Connect(scripted{publish: func(_ context.Context, req *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
			got = append(got, req)
			return &feedv1.PublishResponse{Id: "id-7"}, nil
		}})
		id, took, err := call(l.Context(), l, client)
		if len(got) == 0 {
			l.Fatalf("publish returned id %q and %s after %v, and its request had not reached the server", id, described(err), took)
		}
		if id != "id-7" || err != nil {
			l.Errorf("the server answered with id %q, and publish returned id %q and %s", "id-7", id, described(err))
		}
		if len(got) != 1 || got[0].GetTopic() != "alerts" || got[0].GetBody() != "deploy done" {
			l.Errorf("publish(ctx, client, \"alerts\", \"deploy done\") sent %d requests, want one with that topic and body; the first was %s",
				len(got), lab.Text(got[0]))
		}
	})
}

func TestTheStatusOfTheServerReachesTheCaller(t *testing.T) {
	for want := codes.Unauthenticated; want > codes.OK && !t.Failed(); want-- { // all codes, from 16 to 1
		lab.Run(t, func(l *lab.Lab) {
			calls := 0
			client, _ := l.Connect(scripted{publish: func(context.Context, *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
				calls++
				return nil, status.Error(want, "topic alerts is closed")
			}})
			id, took, err := call(l.Context(), l, client)
			switch {
			case calls == 0:
				l.Fatalf("publish returned id %q and %s after %v, and its request had not reached the server", id, described(err), took)
			case status.Code(err) != want:
				l.Errorf("the server answered with code %v, which is lost: publish returned id %q and %s", want, id, described(err))
			case !strings.Contains(err.Error(), "topic alerts is closed"):
				l.Errorf("the server answered with the text \"topic alerts is closed\", which is lost: publish returned %s", described(err))
			}
			if calls > 1 {
				l.Errorf("the server answered with code %v, and publish sent the event %d times; who may send it again is the caller's decision",
					want, calls)
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
				l.Errorf("with a server that hangs and a caller that sets %s, publish returned %s after %v, want one with code DeadlineExceeded after 5s",
					tt.callers, described(err), took)
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
			l.Errorf("the caller allows 1s, and publish returned %s after %v, want one with code DeadlineExceeded after 1s", described(err), took)
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
			l.Errorf("the caller cancelled after 2s, and publish returned %s after %v, want one with code Canceled after 2s", described(err), took)
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
			l.Errorf("the network was cut after 1s, and publish returned id %q and %s after %v, want gRPC's own status, code Unavailable",
				id, described(err), took)
		}
	})
}
