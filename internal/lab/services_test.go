package lab

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]

// service is a feed whose Chat is a function.
type service struct {
	feedv1.UnimplementedFeedServiceServer
	chat func(chatServer) error
}

func (s service) Chat(stream chatServer) error { return s.chat(stream) }

// echo sends each message back.
func echo(stream chatServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

// untilCancelled reads nothing and ends with its context.
func untilCancelled(stream chatServer) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

func line(text string) *feedv1.ChatMessage { return &feedv1.ChatMessage{Text: text} }

// sized returns a message that takes n bytes on the wire: 5 of gRPC's prefix,
// 3 of the field's tag and length, and the text.
func sized(n int) *feedv1.ChatMessage { return line(strings.Repeat("x", n-8)) }

// openTwice opens a stream, drops it and opens another.
func openTwice(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if _, err := open(ctx, desc, conn, method, opts...); err != nil {
		return nil, err
	}
	return open(ctx, desc, conn, method, opts...)
}
