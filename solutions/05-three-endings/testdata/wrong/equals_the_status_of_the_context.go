// Wrong: compares with the status that gRPC makes of the error of a context, text
// and all.
//
// Fails: TestTheDeadlineOfTheCallerIsFound
// Says: the deadline passed while Chat waited for a connection, and clientEnding says Failed, want DeadlineHere
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// clientEnding says how a stream ended that was opened with ctx and whose
// last call on the client returned err.
func clientEnding(ctx context.Context, err error) ending {
	if err == nil || errors.Is(err, io.EOF) {
		return Completed
	}
	switch {
	case status.Code(err) == codes.Unavailable:
		return Unavailable
	case ctx.Err() == nil || !errors.Is(err, status.FromContextError(ctx.Err()).Err()):
		return Failed
	case errors.Is(ctx.Err(), context.Canceled):
		return CanceledHere
	}
	return DeadlineHere
}

// handlerEnding says what err, the first error of a handler's stream, means to
// the handler.
func handlerEnding(err error) ending {
	if errors.Is(err, io.EOF) {
		return HalfClosed
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return PeerGone
	}
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return PeerGone
	}
	return Failed
}
