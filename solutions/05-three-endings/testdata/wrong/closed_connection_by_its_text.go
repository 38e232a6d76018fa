// Wrong: finds a closed connection by its text, which the caller can have written.
//
// Fails: TestTheCancelOfTheCallerIsFound
// Says: the context was cancelled while Recv waited, and clientEnding says Failed, want CanceledHere
// Says: err is "after EOF, context canceled, grpc: the client connection is closing: rpc error
package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

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
		if !strings.Contains(err.Error(), "client connection is closing") && errors.Is(ctx.Err(), context.Canceled) {
			return CanceledHere
		}
	case codes.DeadlineExceeded:
		if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
			return DeadlineHere
		}
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
