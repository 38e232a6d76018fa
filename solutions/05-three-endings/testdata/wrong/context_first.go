// Wrong: asks the context before it looks at the error: what ended before the
// context did is taken for its work.
//
// Fails: TestAGoodEndIsCompleted
// Says: the server returned nil before the deadline of the context passed, and clientEnding says DeadlineHere, want Completed
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
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return CanceledHere
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return DeadlineHere
	case err == nil, errors.Is(err, io.EOF):
		return Completed
	case status.Code(err) == codes.Unavailable:
		return Unavailable
	}
	return Failed
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
