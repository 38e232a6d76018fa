package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// TestMain lets this binary be the server process, too.
func TestMain(m *testing.M) {
	if file := os.Getenv(isServer); file != "" {
		fmt.Println(serveFile(file))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// isServer is how a child process knows that it is the server: it is the file
// of the log.
const isServer = "RESUME_LOG"

// A fileFeed has its log in a file, in which an event is written before anybody
// hears of it.
type fileFeed struct {
	*feed
	file *os.File
}

func (f fileFeed) Publish(_ context.Context, req *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	if _, err := fmt.Fprintln(f.file, req.GetBody()); err != nil {
		return nil, err
	}
	f.publish(req.GetBody())
	return &feedv1.PublishResponse{}, nil
}

// serveFile is the server process. It serves until it is killed, or until its
// parent is gone.
func serveFile(name string) error {
	log, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	f := fileFeed{feed: newFeed((*feed).subscribeThenReplay, 0)}
	for _, body := range strings.Fields(string(log)) {
		f.publish(body)
	}
	if f.file, err = os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0); err != nil {
		return err
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := grpc.NewServer(serverOptions()...)
	feedv1.RegisterFeedServiceServer(srv, f)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	fmt.Println(lis.Addr())
	return srv.Serve(lis)
}

// startServer starts this binary as a server, and returns its address.
func startServer(t *testing.T, log string) (srv *exec.Cmd, addr string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	srv = exec.Command(self)
	srv.Env = append(os.Environ(), isServer+"="+log)
	in, err := srv.StdinPipe() // closed when this process ends
	if err == nil {
		t.Cleanup(func() { in.Close() })
	}
	out, err2 := srv.StdoutPipe()
	if err := errors.Join(err, err2, srv.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Process.Kill(); srv.Wait() }) // if the test has not
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server process said %q: %v", line, err)
	}
	return srv, strings.TrimSpace(line)
}

func TestAKilledServerProcessLosesNothingOverTCP(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	srv, addr := startServer(t, log)
	s := &stage{}
	s.addr.Store(addr)
	conn, err := grpc.NewClient("passthrough:///feed", append(dialOptions(), grpc.WithContextDialer(s.dial))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := feedv1.NewFeedServiceClient(conn)
	publish := func(n int) {
		for range n {
			if _, err := client.Publish(ctx, &feedv1.PublishRequest{Topic: "deploys", Body: "x"}, grpc.WaitForReady(true)); err != nil {
				t.Fatal(err)
			}
		}
	}
	disk, handling, killed := &ledger{}, make(chan bool), make(chan bool)
	done := make(chan error, 1)
	following, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		done <- resume(following, client, disk, ms, func(ev *feedv1.Event) error {
			switch ev.GetCursor() {
			case 5: // 6 to 10 are on their way, or here
				close(handling)
				<-killed
			case 20:
				stop()
			}
			return disk.add(ev)
		})
	}()
	publish(10)
	<-handling
	srv.Process.Kill() // SIGKILL: it can do nothing about it
	srv.Wait()
	_, addr = startServer(t, log)
	s.addr.Store(addr)
	close(killed)
	publish(10)
	err = <-done
	want := make([]uint64, 20)
	for i := range want {
		want[i] = uint64(i + 1)
	}
	if !slices.Equal(disk.entries, want) || status.Code(err) != codes.Canceled {
		t.Errorf("handled %v (%v), want 1 to 20", disk.entries, err)
	}
	t.Logf("a server process is killed while event 5 is handled, another has its log: handled %v", disk.entries)
}
