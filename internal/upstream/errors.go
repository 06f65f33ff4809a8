package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Phase is how far an exchange came.
type Phase string

const (
	Request Phase = "the request" // it cannot be sent as it is, or its body cannot be read: not the server's fault
	Dial    Phase = "connecting"
	Write   Phase = "writing"        // the request
	Head    Phase = "waiting for"    // the response, up to the end of its head
	Body    Phase = "in the body of" // the response
)

// Error is what RoundTrip and the bodies of responses fail with. If the request's context ended, errors.Is finds its
// error and its cause.
type Error struct {
	Phase Phase
	Addr  string // of the server, as in the request's URL
	Sent  bool   // the server can have seen the request, or a part of it
	Err   error

	stale bool // a connection that was kept failed before the first byte of an answer
}

func (e *Error) Error() string {
	switch e.Phase {
	case Request:
		return fmt.Sprintf("the request to %s: %v", e.Addr, e.Err)
	case Dial:
		return fmt.Sprintf("connecting to %s: %v", e.Addr, e.Err)
	case Write:
		return fmt.Sprintf("writing the request to %s: %v", e.Addr, e.Err)
	case Head:
		return fmt.Sprintf("waiting for the response of %s: %v", e.Addr, e.Err)
	}
	return fmt.Sprintf("reading the response of %s: %v", e.Addr, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// ErrHeadTooLarge is in the Error of a response whose head is larger than 256 KiB.
var ErrHeadTooLarge = errors.New("the head of the response is too large")

var (
	errClosed       = errors.New("the connection was closed without an answer")
	errBodyTooShort = errors.New("the body is shorter than its Content-Length")
	errBodyTooLong  = errors.New("the body is longer than its Content-Length")
)

// ended is why ctx is done.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

func addrOf(req *http.Request) string {
	if req.URL == nil {
		return ""
	}
	return req.URL.Host
}
