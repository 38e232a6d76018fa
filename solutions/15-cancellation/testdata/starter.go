package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// relay passes on the events of its upstream.
type relay struct {
	feedv1.UnimplementedFeedServiceServer
	upstream feedv1.FeedServiceClient
	audit    audit
}

// Watch passes on the topic until either stream is over, and then writes down
// how many events the client got.
func (r *relay) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	ctx, sent := stream.Context(), 0
	// TODO: when this runs the client may have left. What is ctx worth then, and
	// how long may an audit hold up Watch?
	defer func() { r.audit(ctx, req.GetTopic(), sent) }()
	// TODO: the client has a deadline, or leaves. Who tells the upstream?
	upstream, err := r.upstream.Watch(context.Background(), req)
	if err != nil {
		return translate(ctx, err)
	}
	for {
		ev, err := upstream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return translate(ctx, err)
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
		sent++
	}
}

// translate says what an error of the upstream means to the client.
func translate(ctx context.Context, err error) error {
	// TODO: the upstream says this of the relay. What is the client told, if it
	// is there, and what does Watch return if it is not?
	return err
}
