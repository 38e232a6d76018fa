// Wrong: has a fitting window, and beside it 1,000 messages that the client has read ahead.
//
// Fails: TestAStalledDownloadStaysWithinItsMemory
// Says: a client opened a download and read nothing, and its memory had
package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// ahead is a stream that is read before its caller asks.
type ahead struct {
	grpc.ClientStream
	events chan *feedv1.Event
	err    error
}

func (a *ahead) RecvMsg(m any) error {
	ev, ok := <-a.events
	if !ok {
		return a.err
	}
	proto.Merge(m.(proto.Message), ev)
	return nil
}

func readAhead(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, opts...)
	if err != nil || !desc.ServerStreams {
		return stream, err
	}
	a := &ahead{ClientStream: stream, events: make(chan *feedv1.Event, 1000)}
	go func() {
		defer close(a.events)
		for {
			ev := new(feedv1.Event)
			if a.err = stream.RecvMsg(ev); a.err != nil {
				return
			}
			select {
			case a.events <- ev:
			case <-stream.Context().Done():
				a.err = context.Cause(stream.Context())
				return
			}
		}
	}()
	return a, nil
}

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return nil
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(2_200_000),
		grpc.WithStaticConnWindowSize(2_200_000),
		grpc.WithChainStreamInterceptor(readAhead),
	}
}
