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
	// An error of an RPC is a status and wraps no error of a context. Its code
	// says what happened, but a server can send each code too: only ctx says
	// whether it happened here. ctx may have ended after the stream, so it
	// does not do alone.
	switch status.Code(err) {
	case codes.Canceled:
		if errors.Is(ctx.Err(), context.Canceled) {
			return CanceledHere
		}
	case codes.DeadlineExceeded:
		// By the clock: the server notices the deadline too, and what it sends
		// can be here before the timer that ends ctx has run.
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
		return HalfClosed // half a close: the client still listens
	}
	// stream.Context().Err() is a context's own error, which has no code.
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return PeerGone
	}
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded: // a deadline can be either
		return PeerGone
	case codes.Unavailable: // from Send, when the connection is lost
		return PeerGone
	}
	return Failed
}
