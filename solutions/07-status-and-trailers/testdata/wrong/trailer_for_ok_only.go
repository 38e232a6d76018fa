// Wrong: sets the trailer at the good end only, where the client needs it least.
//
// Fails: TestWatchTellsTheLastCursorWithEveryStatus
// Says: the topic is deleted after 3 events, and in the trailer of Watch last-cursor has the values [], want ["8998"]
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

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
	reader, err := s.source.Open(ctx, req.GetTopic())
	if err != nil {
		return name(ctx, err)
	}
	// Headers leave with the first event, if nothing sends them earlier.
	if err := stream.SendHeader(metadata.Pairs("watching", "yes")); err != nil {
		return err
	}
	last := ""
	for {
		ev, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			stream.SetTrailer(metadata.Pairs("last-cursor", last))
			return nil
		}
		if err != nil {
			return name(ctx, err)
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
		last = ev.GetId()
	}
}

// name makes a status of an error of the source, seen from the client: whose
// fault is it, and is there any use in trying again? A real server also logs
// err, which tells of servers that the client does not know.
func name(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, errNoTopic):
		return status.Error(codes.NotFound, errNoTopic.Error())
	case ctx.Err() != nil:
		// Asked of the context, because the error may be the context's own,
		// or a status, or the source's, which has a time limit of its own.
		return status.FromContextError(ctx.Err()).Err()
	case status.Code(err) == codes.Unavailable:
		return status.Error(codes.Unavailable, "the feed cannot be reached")
	}
	return status.Error(codes.Internal, "the feed failed")
}

// watch reads a topic to its end. It returns the last cursor that the server
// tells in its trailer, and how the topic ended: nil for OK, the server's
// status otherwise.
func watch(ctx context.Context, client feedv1.FeedServiceClient, topic string) (last string, err error) {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return "", err
	}
	for err == nil {
		_, err = stream.Recv()
	}
	// Recv has returned an error, so the trailer is here, whatever the error.
	if values := stream.Trailer().Get("last-cursor"); len(values) > 0 {
		last = values[0]
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return last, err
}
