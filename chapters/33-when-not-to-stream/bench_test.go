//go:build unix

package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// A sample is what an operation cost in one run of its benchmark.
type sample struct{ micros, allocs, bytes float64 }

// seen is what the benchmarks measured so far, with -count again and again.
var seen = map[string][]sample{}

// ops are what is measured. Each prepares, and returns what does it once.
var ops = []struct {
	name string
	make func(ctx context.Context, s *server, conn *grpc.ClientConn) (do func() error)
}{
	{"unary call", func(ctx context.Context, _ *server, conn *grpc.ClientConn) func() error {
		return func() error { return publishEach(ctx, feedv1.NewFeedServiceClient(conn), 1) }
	}},
	{"client stream of one", func(ctx context.Context, _ *server, conn *grpc.ClientConn) func() error {
		return func() error { return uploadEach(ctx, feedv1.NewFeedServiceClient(conn), 1) }
	}},
	{"message on an open stream", func(ctx context.Context, _ *server, conn *grpc.ClientConn) func() error {
		stream, err := feedv1.NewFeedServiceClient(conn).Ingest(ctx)
		return func() error {
			if err == nil {
				if err = stream.Send(&feedv1.Event{Body: "green"}); err == nil {
					_, err = stream.Recv()
				}
			}
			return err
		}
	}},
	{"poll without news", func(ctx context.Context, _ *server, conn *grpc.ClientConn) func() error {
		return func() error {
			ctx, cancel := context.WithTimeout(ctx, within)
			defer cancel()
			return conn.Invoke(ctx, "/feed.v1.Pull/Latest", &feedv1.WatchRequest{}, new(feedv1.Event))
		}
	}},
	{"long poll with news", func(ctx context.Context, s *server, conn *grpc.ClientConn) func() error {
		return heardBy(ctx, s, conn, longPoll)
	}},
	{"event on an open stream", func(ctx context.Context, s *server, conn *grpc.ClientConn) func() error {
		return heardBy(ctx, s, conn, watch)
	}},
}

// heardBy returns what adds an event and waits until it is heard.
func heardBy(ctx context.Context, s *server, conn *grpc.ClientConn, hear hearer) func() error {
	heard, ended := make(chan bool), make(chan error, 1)
	go func() {
		ended <- hear(ctx, conn, func(*feedv1.Event) {
			select {
			case heard <- true:
			case <-ctx.Done():
			}
		})
	}()
	return func() error {
		s.add("green")
		select {
		case <-heard:
			return nil
		case err := <-ended:
			return err
		}
	}
}

// BenchmarkWays measures over loopback TCP, both ends in this process, with
// figures that benchstat can compare:
//
//	go test ./chapters/33-when-not-to-stream -run - -bench Ways -count 10
//
// With -update it writes the table of the README: the least of each figure,
// because what else runs can only add to it.
func BenchmarkWays(b *testing.B) {
	for _, op := range ops {
		b.Run(op.name, func(b *testing.B) {
			s := newServer(hold)
			l, err := connect(s)
			if err != nil {
				b.Fatal(err)
			}
			defer l.end()
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			do := op.make(ctx, s, l.conn)
			for range 100 { // the connection is up, and the windows have grown
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			cpu, bytes, allocs := cpuTime(b), l.bytes.Load(), mallocs()
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
			n := float64(b.N)
			got := sample{float64((cpuTime(b) - cpu).Nanoseconds()) / n / 1000, float64(mallocs()-allocs) / n, float64(l.bytes.Load()-bytes) / n}
			b.ReportMetric(got.micros*1000, "cpu-ns/op")
			b.ReportMetric(got.bytes, "wire-B/op")
			seen[op.name] = append(seen[op.name], got)
		})
	}
	if f := flag.Lookup("update"); f.Value.String() != "true" || len(seen) < len(ops) {
		return
	}
	text := fmt.Sprintf("%-28s %14s %12s %10s\n", "", "µs, processor", "allocations", "bytes")
	for _, op := range ops {
		least := func(of func(sample) float64) float64 {
			return of(slices.MinFunc(seen[op.name], func(a, b sample) int { return int(1000 * (of(a) - of(b))) }))
		}
		text += fmt.Sprintf("%-28s %14.0f %12.0f %10.0f\n", op.name,
			least(func(s sample) float64 { return s.micros }), least(func(s sample) float64 { return s.allocs }), least(func(s sample) float64 { return s.bytes }))
	}
	lab.Golden(b, "cpu.txt", text)
}

// cpuTime is what this process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
