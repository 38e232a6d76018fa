package main

import (
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// streamInterceptor turns a handler's panic into Internal, and writes one line
// to log for each stream, when it has ended.
func streamInterceptor(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		// TODO: here the stream begins. The line is for its end.
		log.Info("stream",
			"method", info.FullMethod,
			"code", codes.OK, // TODO: the one of what the handler returns
			"received", 0, // TODO
			"sent", 0, // TODO
			"duration", time.Duration(0), // TODO
		)
		defer func() {
			recover() // TODO: the client is told that all went well, and the log nothing
		}()
		return handler(srv, &counted{ServerStream: stream})
	}
}

// counted is a stream that counts its messages.
type counted struct {
	grpc.ServerStream
	// TODO: count what comes and goes.
}
