// This program opens streams on a server on loopback, ends them in different
// ways, and prints what your liveStreams knows of them on both sides.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// feed has no events. Its Watch ends with its context, its Chat returns when
// the client has closed its side, and its UploadEvents is deaf for a second.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
}

func (feed) Watch(_ *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

func (feed) Chat(stream grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return nil
		}
	}
}

func (feed) UploadEvents(grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	time.Sleep(time.Second)
	return errors.New("too late")
}

func (feed) Publish(context.Context, *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	return &feedv1.PublishResponse{}, nil
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
	server, client := newLiveStreams(), newLiveStreams()
	srv := grpc.NewServer(grpc.StatsHandler(server), grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, feed{})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithStatsHandler(client),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	c := feedv1.NewFeedServiceClient(conn)

	show := func(what string) {
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
		}
		fmt.Println(what)
		for _, side := range []struct {
			name string
			live *liveStreams
		}{{"client", client}, {"server", server}} {
			fmt.Printf("  %s:", side.name)
			for _, s := range side.live.Snapshot() {
				fmt.Printf("  %s %v", path.Base(s.Method), s.Age.Round(100*time.Millisecond))
			}
			fmt.Println()
		}
	}
	watchCtx, cancelWatch := context.WithCancel(ctx)
	defer cancelWatch()
	if _, err := c.Watch(watchCtx, &feedv1.WatchRequest{}); err != nil {
		return err
	}
	show("a Watch is open")
	chat, err := c.Chat(ctx)
	if err != nil {
		return err
	}
	if _, err := c.Watch(ctx, &feedv1.WatchRequest{}); err != nil {
		return err
	}
	if _, err := c.Publish(ctx, &feedv1.PublishRequest{}); err != nil {
		return err
	}
	show("a Chat and another Watch are open, too, and a Publish has ended")
	cancelWatch()
	show("the first Watch is cancelled")
	chat.CloseSend()
	chat.Recv() // the end
	show("the Chat has ended")
	uploadCtx, cancelUpload := context.WithCancel(ctx)
	defer cancelUpload()
	if _, err := c.UploadEvents(uploadCtx); err != nil {
		return err
	}
	show("an UploadEvents is open, whose handler is deaf")
	cancelUpload()
	show("it is cancelled: its handler runs on")
	conn.Close()
	show("the connection is closed")
	srv.Stop()
	show("the server is stopped, and all handlers have returned")
	return ctx.Err()
}
