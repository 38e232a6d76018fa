// Wrong: does not believe that a stream went well whose context has ended since.
//
// Fails: TestAReceiptIsAGoodEnd
// Says: CloseAndRecv returned the receipt and no error before the context was cancelled, and clientEnding says Failed, want Completed
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
	if err == nil && ctx.Err() != nil {
		return Failed
	}
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
