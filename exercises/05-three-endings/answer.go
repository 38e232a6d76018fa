package main

import (
	"context"
	"errors"
	"io"
	"strings"
)

// clientEnding says how a stream ended that was opened with ctx and whose
// last call on the client returned err.
func clientEnding(ctx context.Context, err error) ending {
	if err == nil || errors.Is(err, io.EOF) {
		return Completed
	}
	// TODO: find a cancel and a deadline of the caller, and do not take those
	// of the server for them.
	switch {
	case errors.Is(err, context.Canceled):
		return CanceledHere
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineHere
	// TODO: whoever says Unavailable, and in whatever words, is to be heard.
	case strings.Contains(err.Error(), "error reading from server"):
		return Unavailable
	}
	return Failed
}

// handlerEnding says what err, the first error of a handler's stream, means to
// the handler.
func handlerEnding(err error) ending {
	// TODO: has a client that is done with sending left?
	if errors.Is(err, io.EOF) {
		return PeerGone
	}
	// TODO: a client that has left, for whatever reason, is no failure.
	return Failed
}
