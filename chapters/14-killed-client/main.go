// kill -9 gives a client no time to say anything. Its kernel lives on and closes
// the connection, and so the server learns that every stream on it has ended.
//
// The program starts a client in a process of its own, kills it in the middle
// of a chat, and reads the server's log: who joined and never left? It does so
// with three handlers.
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
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]

// room is a feed with one chat room. Its log has a line for each chat that
// begins, which it does with the client's name, and one for each that ends. Its
// list has who is there.
type room struct {
	feedv1.UnimplementedFeedServiceServer
	chat   func(*room, string, chatServer) error
	closed chan struct{} // closed when the room is

	// For the story, which takes what comes here; a server does without, for it
	// would be stuck when they are full.
	gone  chan struct{} // a value for each chat whose context has ended
	ended chan struct{} // a value for each chat whose handler has returned

	mu     sync.Mutex
	log    []string
	listed map[string]bool
}

func newRoom(chat func(*room, string, chatServer) error) *room {
	return &room{
		chat: chat, closed: make(chan struct{}), listed: map[string]bool{},
		gone: make(chan struct{}, 1000), ended: make(chan struct{}, 1000),
	}
}

// Chat reads the client's name, and writes the two lines without which a log
// cannot show an orphan. A client that never says its name has no line.
func (r *room) Chat(stream chatServer) error {
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	name := hello.GetFrom()
	context.AfterFunc(stream.Context(), func() { r.gone <- struct{}{} })
	defer func() { r.ended <- struct{}{} }()
	r.note("begin " + name)
	defer r.note("end " + name)
	return r.chat(r, name, stream)
}

// chatUntilTheRoomCloses answers, and then waits for the room alone.
func (r *room) chatUntilTheRoomCloses(name string, stream chatServer) error {
	leave := r.join(name)
	defer leave()
	if err := stream.Send(says("welcome " + name)); err != nil {
		return err
	}
	<-r.closed // not the stream's context: nobody tells this handler
	return nil
}

// chatUntilEOF leaves when the client half-closes, and on no other way out.
func (r *room) chatUntilEOF(name string, stream chatServer) error {
	leave := r.join(name)
	if err := stream.Send(says("welcome " + name)); err != nil {
		return err
	}
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			leave()
			return nil
		}
		if err != nil {
			return err // a killed client ends here
		}
		if err := stream.Send(says(msg.GetText())); err != nil {
			return err
		}
	}
}

// chatUntilTheEnd leaves by defer: whatever ends the stream ends Recv, and
// whatever ends the handler takes the name off the list.
func (r *room) chatUntilTheEnd(name string, stream chatServer) error {
	leave := r.join(name)
	defer leave()
	if err := stream.Send(says("welcome " + name)); err != nil {
		return err
	}
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(says(msg.GetText())); err != nil {
			return err
		}
	}
}

// join lists the name. Here each name has one stream; what becomes of the list
// when one has two is the exercise.
func (r *room) join(name string) (leave func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listed[name] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listed, name)
	}
}

func (r *room) note(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, line)
}

// orphans reads the log: the names that have begun and not ended.
func (r *room) orphans() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.log {
		event, name, _ := strings.Cut(line, " ")
		if event == "begin" {
			names = append(names, name)
		} else if i := slices.Index(names, name); i >= 0 {
			names = slices.Delete(names, i, i+1)
		}
	}
	return names
}

func (r *room) list() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.listed {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func says(text string) *feedv1.ChatMessage { return &feedv1.ChatMessage{From: "room", Text: text} }

// victim is the client process: it chats with the server at addr under each
// of the names, says so on standard output, and waits to be killed. When its
// server is gone it ends by itself.
func victim(addr string, names []string) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	var last grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]
	for _, name := range names {
		last, err = feedv1.NewFeedServiceClient(conn).Chat(context.Background())
		if err != nil {
			return err
		}
		if err := last.Send(&feedv1.ChatMessage{From: name}); err != nil {
			return err
		}
		if _, err := last.Recv(); err != nil {
			return err
		}
	}
	fmt.Println("chatting")
	_, err = last.Recv() // until the signal, or until the server stops
	return err
}

// isVictim is the variable by which this program knows that it is the client.
const isVictim = "KILLED_CLIENT_ADDR"

// startVictim starts this program again, as a client, and returns when it
// chats. The caller waits for the process, which does not outlive ctx.
func startVictim(ctx context.Context, addr string, names ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, names...) // kills it when ctx ends
	cmd.Env = append(os.Environ(), isVictim+"="+addr)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the client: %w", err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "chatting\n" {
		cmd.Process.Kill()
		return nil, fmt.Errorf("the client said %q instead of chatting: %v", line, cmd.Wait())
	}
	return cmd, nil
}

func main() {
	if addr := os.Getenv(isVictim); addr != "" {
		signal.Ignore(os.Interrupt) // a terminal sends Ctrl-C here, too: the parent sees to it
		if err := victim(addr, os.Args[1:]); err != nil {
			fmt.Println(err) // to the parent, which reads it
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second/2); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	for _, handler := range []struct {
		what, name string
		chat       func(*room, string, chatServer) error
	}{
		{"waits for its room", "alice", (*room).chatUntilTheRoomCloses},
		{"leaves at io.EOF", "bob", (*room).chatUntilEOF},
		{"leaves by defer", "carol", (*room).chatUntilTheEnd},
	} {
		say(ctx, w, pace, "kill -9 %s, whose handler %s:", handler.name, handler.what)
		r := newRoom(handler.chat)
		err := r.kill(ctx, handler.name, max(pace, 20*time.Millisecond), func(took time.Duration) {
			say(ctx, w, pace, "  the server knew within %v", took.Round(100*time.Microsecond))
			say(ctx, w, pace, "  begun and not ended: %v, listed: %v", r.orphans(), r.list())
		})
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// kill serves the room, starts a client, kills it, and tells how long it took
// until the stream's context ended. Before it tells it gives the handler some
// patience to end. It returns when ctx ends, whatever it waits for.
func (r *room) kill(
	ctx context.Context, name string, patience time.Duration, tell func(took time.Duration),
) error {
	addr, stop, err := r.serve()
	if err != nil {
		return err
	}
	defer stop()
	client, err := startVictim(ctx, addr, name)
	if err != nil {
		return err
	}
	start := time.Now()
	client.Process.Kill() // SIGKILL on Unix
	client.Wait()         // leaves no zombie; its "signal: killed" is no news
	select {
	case <-r.gone:
	case <-ctx.Done():
		return fmt.Errorf("the server does not know that the client is dead: %w", ctx.Err())
	}
	took := time.Since(start)
	select {
	case <-r.ended:
	case <-time.After(patience):
	case <-ctx.Done():
	}
	tell(took)
	return nil
}

// serve serves the room on loopback. The returned function closes the room,
// which ends the handlers that wait for nothing else, and stops the server.
func (r *room) serve() (addr string, stop func(), err error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, r)
	go srv.Serve(lis) // returns when srv is stopped
	return lis.Addr().String(), func() { close(r.closed); srv.Stop() }, nil
}

// say prints a line and gives the reader time for it. To a reader who is
// leaving it says nothing.
func say(ctx context.Context, w io.Writer, pace time.Duration, format string, args ...any) {
	if ctx.Err() != nil {
		return
	}
	fmt.Fprintf(w, format+"\n", args...)
	select {
	case <-time.After(pace):
	case <-ctx.Done():
	}
}
