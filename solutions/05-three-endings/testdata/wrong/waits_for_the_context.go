// Wrong: waits for the context, to be sure that it ends. It does not.
//
// Fails: TestACancelOrADeadlineOfTheServerIsAFailure
// Says: clientEnding has not returned after 1s
// Says: blocked receiving from a channel at answer.go:
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
	switch status.Code(err) {
	case codes.Canceled:
		<-ctx.Done()
		return CanceledHere
	case codes.DeadlineExceeded:
		<-ctx.Done()
		return DeadlineHere
	case codes.Unavailable:
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
