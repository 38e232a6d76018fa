// Wrong: compares with io.EOF in the handler, and the caller has wrapped it.
//
// Fails: TestAHalfCloseIsNotTheClientLeaving
// Says: the client half-closed while Recv waited, and handlerEnding says Failed, want HalfClosed
// Says: err is "chat: EOF
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
	passed := ok && !time.Now().Before(deadline)
	switch code := status.Code(err); {
	case code == codes.Canceled && errors.Is(ctx.Err(), context.Canceled):
		return CanceledHere
	case code == codes.DeadlineExceeded && passed:
		return DeadlineHere
	case code == codes.Unavailable:
		return Unavailable
	}
	return Failed
}

// handlerEnding says what err, the first error of a handler's stream, means to
// the handler.
func handlerEnding(err error) ending {
	if err == io.EOF {
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
