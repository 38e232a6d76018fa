// Wrong: tells a good end from the rest, and then asks the context alone.
//
// Fails: TestAFailureOfTheServerIsAFailure
// Says: the server failed with code Unknown and the text "" before the deadline of the context passed, and clientEnding says DeadlineHere, want Failed
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
	switch ctx.Err() {
	case context.Canceled:
		return CanceledHere
	case context.DeadlineExceeded:
		return DeadlineHere
	}
	if status.Code(err) == codes.Unavailable {
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
