//go:build grpcurl

// These tests run grpcurl itself, which a learner need not have: CI does, with
// go test -tags grpcurl. Its version is pinned in .ci/tools.mod.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// built makes grpcurl, the first time, and returns where it is.
var built = sync.OnceValues(func() (string, error) {
	path, err := exec.Command("go", "tool", "-modfile=../../.ci/tools.mod", "-n", "grpcurl").Output()
	return strings.TrimSpace(string(path)), err
})

func tool(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatalf("go tool grpcurl: %v", err)
	}
	return path
}

// grpcurl returns a command line; ADDR stands for the address of the server.
func grpcurl(ctx context.Context, t *testing.T, addr string, args ...string) *exec.Cmd {
	t.Helper()
	for i, arg := range args {
		args[i] = strings.ReplaceAll(arg, "ADDR", addr)
	}
	return exec.CommandContext(ctx, tool(t), append([]string{"-plaintext"}, args...)...)
}

// says runs grpcurl, and returns what it printed and its exit code.
func says(t *testing.T, addr, stdin string, args ...string) (string, int) {
	t.Helper()
	tool(t) // the limit is for the call: its build, too, may take half a minute
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := grpcurl(ctx, t, addr, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("%v: %v\n%s%s", args, err, &out, &errs)
	}
	return out.String() + errs.String(), cmd.ProcessState.ExitCode()
}

// What the README shows. Topic deploys ends after its two events, alerts stays.
func TestGrpcurlShowsEachShapeOverTCP(t *testing.T) {
	addr, _ := served(t)
	var text strings.Builder
	for _, call := range []struct{ stdin, args string }{
		{"", `-d {"topic":"deploys"} ADDR feed.v1.FeedService/Watch`},
		{`{"id":"1"} {"id":"2"} {"id":"3"}`, "-d @ ADDR feed.v1.FeedService/UploadEvents"},
		{`{"text":"hello"} {"text":"anybody?"}`, "-d @ ADDR feed.v1.FeedService/Chat"},
		{"", `-max-time 4 -d {"topic":"alerts"} ADDR feed.v1.FeedService/Watch`},
		{"", `-v -d {"topic":"deploys"} ADDR feed.v1.FeedService/Watch`},
		{"", "ADDR list"},
		{"", "ADDR describe feed.v1.FeedService.Watch"},
		{"", "ADDR describe feed.v1.WatchRequest"},
		{"", `-d {"topc":"deploys"} ADDR feed.v1.FeedService/Watch`},
		{"", `-d {"id":"1"} ADDR feed.v1.FeedService/Ingest`},
	} {
		shown := strings.ReplaceAll(strings.ReplaceAll(call.args, "{", "'{"), "}", "}'")
		shown = "grpcurl -plaintext " + strings.ReplaceAll(shown, "ADDR", "localhost:50051")
		if call.stdin != "" {
			shown = "echo '" + call.stdin + "' | " + shown
		}
		out, code := says(t, addr, call.stdin, strings.Fields(call.args)...)
		// A deadline ends a stream at both ends at once: the server's may be first.
		out = strings.Replace(out, "stream terminated by RST_STREAM with error code: CANCEL", "context deadline exceeded", 1)
		fmt.Fprintf(&text, "$ %s\n%s", shown, strings.TrimLeft(out, "\n"))
		if code != 0 {
			fmt.Fprintf(&text, "exit code %d\n", code)
		}
	}
	lab.Golden(t, "grpcurl.txt", text.String())
}

// With -d @ and a standard input that stays open each message leaves when it is
// complete: its echo comes before the next one is typed.
func TestGrpcurlSendsEachMessageWhenItIsCompleteOverTCP(t *testing.T) {
	addr, _ := served(t)
	cmd := grpcurl(t.Context(), t, addr, "-d", "@", "ADDR", "feed.v1.FeedService/Chat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two", "three"} {
		fmt.Fprintf(stdin, `{"text":%q}`+"\n", text)
		want := fmt.Sprintf("{\n  \"text\": %q\n}\n", text)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(stdout, got); err != nil || string(got) != want {
			t.Fatalf("after %q grpcurl printed %q, %v, want %q", text, got, err, want)
		}
	}
	stdin.Close() // the half-close
	if err := cmd.Wait(); err != nil {
		t.Errorf("after the end of its input grpcurl ended with %v", err)
	}
}

// Its question by reflection stays open beside the call, on one connection. At
// -max-time both end in a tie: the call is opened and ends with DeadlineExceeded,
// or it could not be opened, and then v1.9.4 forgets the status, prints nothing
// and exits with 0 (invoke.go, invokeServerStream). Both were seen.
func TestGrpcurlNeedsTwoPlacesOverTCP(t *testing.T) {
	call := func(places uint32, maxTime string) (string, int, time.Duration) {
		addr, _ := served(t, grpc.MaxConcurrentStreams(places))
		start := time.Now()
		out, code := says(t, addr, "", "-max-time", maxTime, "-d", `{"topic":"deploys"}`, "ADDR", "feed.v1.FeedService/Watch")
		return out, code, time.Since(start)
	}
	out, code, took := call(1, "2")
	t.Logf("1 place for streams: grpcurl -max-time 2 printed %q and ended with %d after %v", out, code, took.Round(time.Second))
	if strings.Contains(out, `"id"`) || code != 0 && code != 64+4 || took < 2*time.Second {
		t.Errorf("with 1 place grpcurl printed %q and ended with %d after %v, want no event within 2s", out, code, took)
	}
	if out, code, _ := call(2, "20"); code != 0 || !strings.Contains(out, `"id": "2"`) {
		t.Errorf("with 2 places grpcurl printed %q and ended with %d", out, code)
	}
}

func TestAKilledGrpcurlLeavesNoStreamOverTCP(t *testing.T) {
	var server streams
	addr, _ := served(t, grpc.StatsHandler(&server))
	cmd := grpcurl(t.Context(), t, addr, "-d", `{"topic":"alerts"}`, "ADDR", "feed.v1.FeedService/Watch")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	io.ReadFull(stdout, make([]byte, 20)) // into its second event
	if open, _ := server.take(); open != 2 {
		t.Errorf("while it watches %d RPCs are open, want 2: the call and the reflection", open)
	}
	cmd.Process.Kill()
	cmd.Wait()
	open := -1
	for deadline := time.Now().Add(10 * time.Second); open != 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		open, _ = server.take()
	}
	if open != 0 {
		t.Errorf("grpcurl was killed, and %d RPCs are still open", open)
	}
}

func TestWithoutReflectionGrpcurlNeedsTheProtoOverTCP(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := newServer(false)
	feedv1.RegisterFeedServiceServer(srv, &server{})
	go srv.Serve(lis)
	defer srv.Stop()
	call := []string{"-d", `{"topic":"deploys"}`, "ADDR", "feed.v1.FeedService/Watch"}
	out, code := says(t, lis.Addr().String(), "", append([]string{}, call...)...)
	t.Logf("exit code %d, %s", code, out)
	if code == 0 || !strings.Contains(out, "does not support the reflection API") {
		t.Errorf("without reflection: exit code %d, %s", code, out)
	}
	out, code = says(t, lis.Addr().String(), "", append([]string{"-import-path", "../../proto", "-proto", "feed/v1/feed.proto"}, call...)...)
	if code != 0 || !strings.Contains(out, `"id": "2"`) {
		t.Errorf("with the .proto: exit code %d, %s", code, out)
	}
}
