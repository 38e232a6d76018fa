// Wrong: looks for the error of a context in that of an RPC, which never wraps
// one.
//
// Fails: TestTheCancelOfTheCallerIsFound
// Says: the context was cancelled while Recv waited, and clientEnding says Failed, want CanceledHere
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
	case err == nil, errors.Is(err, io.EOF):
		return Completed
	case errors.Is(err, context.Canceled):
		return CanceledHere
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineHere
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
