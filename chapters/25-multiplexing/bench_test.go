//go:build unix

package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/mygrpc/internal/lab"
)

// sizes are how many streams the benchmark opens on one connection.
var sizes = []int{1000, 10_000, 100_000}

// seen is what the benchmark measured so far, with -count again and again.
var seen = map[int]*struct{ kib, micros []float64 }{}

// BenchmarkStreams opens streams over loopback TCP, both ends in this process.
// 100,000 need 3 GB. An operation is n streams that are opened and served; to
// end them is not counted. The other figures are for one stream, so that benchstat
// can compare them, also between sizes:
//
//	go test ./chapters/25-multiplexing -run - -bench Streams -benchtime 1x -count 5
//
// With -update it writes the plots of the README: the mean of the bytes, and the
// least of the processor's times, because what else runs can only add to them.
func BenchmarkStreams(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) { benchmark(b, n) })
	}
	if f := flag.Lookup("update"); f.Value.String() != "true" || len(seen) < len(sizes) {
		return
	}
	var kib, micros []string
	var mostKiB, mostMicros float64
	for _, n := range sizes {
		s := seen[n]
		kib = append(kib, fmt.Sprintf("%.1f", mean(s.kib)))
		micros = append(micros, fmt.Sprintf("%.0f", slices.Min(s.micros)))
		mostKiB, mostMicros = max(mostKiB, mean(s.kib)), max(mostMicros, slices.Min(s.micros))
	}
	lab.Golden(b, "bytes.mmd", chart("KiB a stream", mostKiB, kib))
	lab.Golden(b, "time.mmd", chart("µs of a processor to open a stream", mostMicros, micros))
}

func benchmark(b *testing.B, n int) {
	var bytes, stacks, count float64
	var cpu time.Duration
	for b.Loop() {
		b.StopTimer()
		h, err := serve(&server{})
		if err != nil {
			b.Fatal(err)
		}
		client, err := h.dial()
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		if _, err := openOnOne(ctx, client, 1); err != nil { // the connection is up
			b.Fatal(err)
		}
		before := measure()
		b.StartTimer()
		began := cpuTime(b)
		if _, err := openOnOne(ctx, client, n); err != nil {
			b.Fatal(err)
		}
		cpu += cpuTime(b) - began
		b.StopTimer()
		after := measure()
		held, started := after.since(before, n)
		bytes, count = bytes+held, count+started
		stacks += float64(after.stacks-before.stacks) / float64(n)
		cancel()
		h.end()
		b.StartTimer()
	}
	ops := float64(b.N)
	nanos := float64(cpu.Nanoseconds()) / ops / float64(n)
	b.ReportMetric(bytes/ops, "B/stream")
	b.ReportMetric(stacks/ops, "stack-B/stream")
	b.ReportMetric(count/ops, "goroutines/stream")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/ops/float64(n), "ns/stream")
	b.ReportMetric(nanos, "cpu-ns/stream")
	if seen[n] == nil {
		seen[n] = &struct{ kib, micros []float64 }{}
	}
	seen[n].kib = append(seen[n].kib, bytes/ops/1024)
	seen[n].micros = append(seen[n].micros, nanos/1000)
}

// cpuTime is what this process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func mean(figures []float64) (m float64) {
	for _, x := range figures {
		m += x / float64(len(figures))
	}
	return m
}

func chart(what string, most float64, figures []string) string {
	return fmt.Sprintf("xychart-beta\n    x-axis \"streams on one connection\" [1000, 10000, 100000]\n    y-axis %q 0 --> %.0f\n    bar [%s]\n",
		what, most*1.25, strings.Join(figures, ", "))
}
