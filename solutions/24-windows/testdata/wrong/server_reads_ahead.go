// Wrong: reads an upload ahead of its handler, whatever it has: the window bounds it no more.
//
// Fails: TestAnUnreadUploadStaysWithinItsMemory
// Says: with your serverOptions, a handler did not read its upload
package main

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// ahead is a stream that is read before its handler asks.
type ahead struct {
	grpc.ServerStream
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

func readAhead(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if !info.IsClientStream {
		return handle(srv, stream)
	}
	a := &ahead{ServerStream: stream, events: make(chan *feedv1.Event, 100_000)}
	go func() {
		defer close(a.events)
		for {
			ev := new(feedv1.Event)
			if a.err = stream.RecvMsg(ev); a.err != nil {
				return
			}
			a.events <- ev
		}
	}()
	return handle(srv, a)
}

// serverOptions is what our servers are started with, beside the credentials.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainStreamInterceptor(readAhead),
	}
}

// dialOptions is what our clients connect with, beside the credentials.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(3 << 20),
		grpc.WithStaticConnWindowSize(3 << 20),
	}
}
