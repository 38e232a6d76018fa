package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server passes on the events of its source.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	source source
}

// Watch sends the events of a topic as they come. A header tells the client
// that the topic is open; a status tells how it ended, and a trailer how far
// the client has come.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	ctx := stream.Context()
	// TODO: the source fails as Go code does. What does each of its errors
	// mean to the client, and which of them is no failure?
	reader, err := s.source.Open(ctx, req.GetTopic())
	if err != nil {
		return err
	}
	for {
		ev, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
		// TODO: the client of a silent topic waits for this header, and the
		// client of a busy one never gets it.
		stream.SetHeader(metadata.Pairs("watching", "yes"))
		// TODO: after three events the trailer has three values. The client
		// wants one.
		stream.SetTrailer(metadata.Pairs("last-cursor", ev.GetId()))
	}
}

// watch reads a topic to its end. It returns the last cursor that the server
// tells in its trailer, and how the topic ended: nil for OK, the server's
// status otherwise.
func watch(ctx context.Context, client feedv1.FeedServiceClient, topic string) (last string, err error) {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return "", err
	}
	for {
		// TODO: one of the errors of Recv is no failure.
		if _, err := stream.Recv(); err != nil {
			return last, err
		}
		// TODO: from when on is the trailer here?
		if values := stream.Trailer().Get("last-cursor"); len(values) > 0 {
			last = values[0]
		}
	}
}
