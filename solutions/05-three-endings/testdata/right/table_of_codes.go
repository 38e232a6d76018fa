// Right: looks the meaning up in a table.
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
	if err == nil || errors.Is(err, io.EOF) {
		return Completed
	}
	deadline, ok := ctx.Deadline()
	means := map[codes.Code]struct {
		ending ending
		here   bool
	}{
		codes.Canceled:         {CanceledHere, errors.Is(ctx.Err(), context.Canceled)},
		codes.DeadlineExceeded: {DeadlineHere, ok && time.Since(deadline) >= 0},
		codes.Unavailable:      {Unavailable, true},
	}[status.Code(err)]
	if !means.here {
		return Failed
	}
	return means.ending
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
