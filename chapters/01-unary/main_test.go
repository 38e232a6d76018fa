package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

func stored(context.Context, *feedv1.Event) error { return nil }

func fullDisk(context.Context, *feedv1.Event) error { return errors.New("disk of db-7 is full") }

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(&server{feed{store: stored}})
		publish(l.Context(), client, "alerts", "deploy done", time.Second)
		publish(l.Context(), client, "", "?", time.Second)
		lab.Golden(t, "wire.txt", link.Ladder())
	})
}

func TestACallIsOneStreamOfFiveFrames(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(&server{feed{store: stored}})
		if _, err := publish(l.Context(), client, "alerts", "deploy done", time.Second); err != nil {
			l.Fatal(err)
		}
		frames := link.Frames()
		var got []string
		for _, f := range frames {
			text := f.From.String() + " " + f.Type
			if f.EndStream {
				text += " END_STREAM"
			}
			if f.Stream != frames[0].Stream {
				text += " on another stream"
			}
			got = append(got, text)
		}
		const want = "client HEADERS, client DATA END_STREAM, server HEADERS, server DATA, server HEADERS END_STREAM"
		if strings.Join(got, ", ") != want {
			l.Errorf("the frames are %q, want %q", got, want)
		}
		l.Logf("%s", strings.Join(got, ", "))
	})
}

func TestAWarmCallCostsOneRoundTrip(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{feed{store: stored}})
		start := time.Now()
		if _, err := publish(l.Context(), client, "alerts", "deploy done", time.Second); err != nil {
			l.Fatal(err)
		}
		if took := time.Since(start); took != 2*lab.Latency {
			l.Errorf("the call took %v, want one round trip of %v", took, 2*lab.Latency)
		}
		l.Logf("%v at a one-way latency of %v", time.Since(start), lab.Latency)
	})
}

func TestAnErrorReplyIsOneFrame(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(&server{feed{store: stored}})
		publish(l.Context(), client, "", "?", time.Second)
		var fromServer []lab.Frame
		for _, f := range link.Frames() {
			if f.From == lab.Server {
				fromServer = append(fromServer, f)
			}
		}
		if len(fromServer) != 1 || fromServer[0].Type != "HEADERS" || !fromServer[0].EndStream {
			l.Fatalf("the server sent %+v, want one HEADERS frame that ends the stream", fromServer)
		}
		f := fromServer[0]
		if f.Field(":status") != "200" || f.Field("grpc-status") != "3" || f.Field("grpc-message") != "topic is empty" {
			l.Errorf("its fields are %v, want HTTP status 200, gRPC status 3 and the text", f.Fields)
		}
		l.Log(f.Text)
	})
}

func TestABareErrorBecomesUnknown(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&bareServer{feed{store: fullDisk}})
		_, err := publish(l.Context(), client, "alerts", "?", time.Second)
		if status.Code(err) != codes.Unknown || status.Convert(err).Message() != "insert: disk of db-7 is full" {
			l.Errorf("the client got %v, want code Unknown with the error's whole text", err)
		}
		l.Log(err)
	})
}

func TestOnlyAStatusOrAContextErrorHasACode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want codes.Code
	}{
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
		{status.Error(codes.NotFound, "no such shard"), codes.NotFound},
		{os.ErrNotExist, codes.Unknown},
		{io.EOF, codes.Unknown},
	} {
		lab.Run(t, func(l *lab.Lab) {
			// insert wraps it with %w.
			client, _ := l.Connect(&bareServer{feed{store: func(context.Context, *feedv1.Event) error { return tt.err }}})
			_, err := publish(l.Context(), client, "alerts", "?", time.Second)
			if status.Code(err) != tt.want {
				l.Errorf("a handler that wraps %v gave %v, want code %v", tt.err, err, tt.want)
			}
			l.Logf("%v: code %v", tt.err, status.Code(err))
		})
	}
}

func TestAStatusKeepsItsCode(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{feed{store: fullDisk}})
		_, err := publish(l.Context(), client, "", "?", time.Second)
		if status.Code(err) != codes.InvalidArgument {
			l.Errorf("for an empty topic the client got %v, want InvalidArgument", err)
		}
		_, err = publish(l.Context(), client, "alerts", "?", time.Second)
		if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "db-7") {
			l.Errorf("for a store that fails the client got %v, want Internal and nothing of the store", err)
		}
		l.Log(err)
	})
}

func TestACallerThatLeftIsNoFaultOfTheServer(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		s := &server{feed{store: untilDone}}
		ctx, cancel := context.WithCancel(l.Context())
		cancel()
		_, err := s.Publish(ctx, &feedv1.PublishRequest{Topic: "alerts"})
		if status.Code(err) != codes.Canceled {
			l.Errorf("the handler returned %v, want Canceled and not Internal", err)
		}
		l.Log(err)
	})
}

func TestTheDeadlineTravelsAsADuration(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		atServer := make(chan time.Time, 1)
		client, link := l.Connect(&server{feed{store: func(ctx context.Context, _ *feedv1.Event) error {
			deadline, _ := ctx.Deadline()
			atServer <- deadline
			return nil
		}}})
		atClient := time.Now().Add(time.Second)
		if _, err := publish(l.Context(), client, "alerts", "deploy done", time.Second); err != nil {
			l.Fatal(err)
		}
		if got := link.Frames()[0].Field("grpc-timeout"); got != "1000000u" {
			l.Errorf("grpc-timeout is %q, want one second in microseconds", got)
		}
		if late := (<-atServer).Sub(atClient); late != lab.Latency {
			l.Errorf("the server's deadline is %v after the client's, want the latency, %v", late, lab.Latency)
		}
		l.Logf("grpc-timeout %s; the server's deadline is later by the latency, %v", link.Frames()[0].Field("grpc-timeout"), lab.Latency)
	})
}

func TestABoundOfYourOwnOnlyShortens(t *testing.T) {
	for _, tt := range []struct{ callers, own, want time.Duration }{
		{time.Second, 5 * time.Second, time.Second},
		{5 * time.Second, time.Second, time.Second},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(&server{feed{store: untilDone}})
			ctx, cancel := context.WithTimeout(l.Context(), tt.callers)
			defer cancel()
			start := time.Now()
			_, err := publish(ctx, client, "alerts", "?", tt.own)
			if took := time.Since(start); status.Code(err) != codes.DeadlineExceeded || took != tt.want {
				l.Errorf("with %v outside and %v inside: %v after %v, want DeadlineExceeded after %v", tt.callers, tt.own, err, took, tt.want)
			}
			l.Logf("%v outside, %v inside: %v", tt.callers, tt.own, time.Since(start))
		})
	}
}

func TestADeadlineAlsoEndsTheHandler(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		ended := make(chan time.Time, 1)
		client, link := l.Connect(&server{feed{store: func(ctx context.Context, ev *feedv1.Event) error {
			err := untilDone(ctx, ev)
			ended <- time.Now()
			return err
		}}})
		start := time.Now()
		publish(l.Context(), client, "alerts", "?", time.Second)
		if late := (<-ended).Sub(start.Add(time.Second)); late != lab.Latency {
			l.Errorf("the handler's context ended %v after the client gave up, want the latency, %v", late, lab.Latency)
		}
		var last lab.Frame
		for _, f := range link.Frames() {
			if f.From == lab.Client {
				last = f
			}
		}
		if last.Type != "RST_STREAM" || last.Text != "CANCEL" {
			l.Errorf("the client's last frame is %s %s, want RST_STREAM CANCEL", last.Type, last.Text)
		}
		l.Logf("%s %s", last.Type, last.Text)
	})
}

func TestWithoutADeadlineACallWaitsForADay(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{feed{store: untilDone}})
		ctx, cancel := context.WithCancel(l.Context())
		time.AfterFunc(24*time.Hour, cancel) // somebody presses Ctrl-C
		start := time.Now()
		_, err := publishWithoutDeadline(ctx, client, "alerts", "?")
		if took := time.Since(start); took != 24*time.Hour || status.Code(err) != codes.Canceled {
			l.Errorf("the call returned %v after %v, want Canceled after 24h", err, took)
		}
		l.Logf("still waiting after %v", time.Since(start))
	}, lab.Lasts(25*time.Hour))
}
