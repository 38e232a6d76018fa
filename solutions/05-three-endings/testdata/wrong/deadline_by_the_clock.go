// Wrong: asks the clock and not the error: a stream that ended in time ended at its
// deadline, if somebody asks late.
//
// Fails: TestAGoodEndIsCompleted
// Says: the server returned nil before the deadline of the context passed, and clientEnding says DeadlineHere, want Completed
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// clientEnding says how a stream ended that was opened with ctx and whose
// last call on the client returned err.
func clientEnding(ctx context.Context, err error) ending {
	if deadline, ok := ctx.Deadline(); ok && time.Now().After(deadline) {
		return DeadlineHere
	}
	if err == nil || errors.Is(err, io.EOF) {
		return Completed
	}
	switch code := status.Code(err); {
	case code == codes.Canceled && ctx.Err() != nil:
		return CanceledHere
	case code == codes.Unavailable:
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
