package lab

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// slow is a feed with an event each 50 minutes.
type slow struct {
	feedv1.UnimplementedFeedServiceServer
}

func (slow) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	for id := 1; ; id++ {
		if err := stream.Send(&feedv1.Event{Id: fmt.Sprint(id), Topic: req.GetTopic()}); err != nil {
			return err
		}
		select {
		case <-time.After(50 * time.Minute):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// firstEvent leaves its stream without a cancel.
func firstEvent(client feedv1.FeedServiceClient) (*feedv1.Event, error) {
	stream, err := client.Watch(context.Background(), &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		return nil, err
	}
	return stream.Recv()
}

// The failure that the top README shows: its ladder, and what the leak check
// says about it while the connection is still open.
func TestTheRecordingOfAnAbandonedStreamIsFresh(t *testing.T) {
	Run(t, func(l *Lab) {
		client, link := l.Connect(slow{})
		if _, err := firstEvent(client); err != nil {
			l.Fatal(err)
		}
		link.Note(Client, "firstEvent has returned: nobody reads, nobody cancels")
		time.Sleep(3 * time.Hour)
		leaks := l.Leaks()
		if len(leaks) != 2 {
			l.Errorf("the leak check says %q, want an RPC and a handler", leaks)
		}
		Golden(l, "testdata/abandoned.txt", link.Ladder()+"\n"+strings.Join(leaks, "\n")+"\n")
		l.conns[0].Close() // ends the stream: a check after Close would see nothing
	}, Lasts(4*time.Hour))
}
