// Right: makes a code of the end of the context and compares it with that of the
// stream.
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
	code, here := status.Code(err), status.FromContextError(ctx.Err()).Code()
	if deadline, ok := ctx.Deadline(); ok && here == codes.OK && time.Until(deadline) <= 0 {
		here = codes.DeadlineExceeded
	}
	switch {
	case code == codes.Unavailable:
		return Unavailable
	case code != here:
		return Failed
	case here == codes.Canceled:
		return CanceledHere
	}
	return DeadlineHere
}

// handlerEnding says what err, the first error of a handler's stream, means to
// the handler.
func handlerEnding(err error) ending {
	switch codeOf(err) {
	case codes.OK:
		return HalfClosed
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return PeerGone
	}
	return Failed
}

// codeOf makes a code of a status, of the error of a context, and of io.EOF.
func codeOf(err error) codes.Code {
	if errors.Is(err, io.EOF) {
		return codes.OK
	}
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}
