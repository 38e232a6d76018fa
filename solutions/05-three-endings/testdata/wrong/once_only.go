// Wrong: takes an error that it has met before for one that it has dealt with.
//
// Fails: TestAHalfCloseIsNotTheClientLeaving
// Says: handlerEnding said HalfClosed, and asked again with the same error it says Failed, want HalfClosed
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var last error

// clientEnding says how a stream ended that was opened with ctx and whose
// last call on the client returned err.
func clientEnding(ctx context.Context, err error) ending {
	if err == nil || errors.Is(err, io.EOF) {
		return Completed
	}
	switch status.Code(err) {
	case codes.Canceled:
		if errors.Is(ctx.Err(), context.Canceled) {
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
	if last != nil && last == err {
		last = nil
		return Failed
	}
	last = err
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
