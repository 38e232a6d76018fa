// Wrong: finds its own cancel by the text. The server wrote the same one, and the
// context ended later.
//
// Fails: TestAFailureOfTheServerIsAFailure
// Says: the server failed with code Unknown and the text "context canceled" before the context was cancelled, and clientEnding says CanceledHere, want Failed
package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// clientEnding says how a stream ended that was opened with ctx and whose
// last call on the client returned err.
func clientEnding(ctx context.Context, err error) ending {
	if err == nil || errors.Is(err, io.EOF) {
		return Completed
	}
	switch text := err.Error(); {
	case ctx.Err() == context.Canceled && strings.HasSuffix(text, "context canceled"):
		return CanceledHere
	case ctx.Err() == context.DeadlineExceeded && strings.HasSuffix(text, "context deadline exceeded"):
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
