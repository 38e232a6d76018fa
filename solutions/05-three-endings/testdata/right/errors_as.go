// Right: takes the status out of the error with errors.As, and takes the bare error
// of a context for the client too.
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
	code := codes.Unknown
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		code = s.GRPCStatus().Code()
	}
	cancelled := code == codes.Canceled || errors.Is(err, context.Canceled)
	deadline, ok := ctx.Deadline()
	late := code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
	switch {
	case cancelled && ctx.Err() == context.Canceled:
		return CanceledHere
	case late && ok && time.Since(deadline) >= 0:
		return DeadlineHere
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
