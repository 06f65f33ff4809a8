// Package status is the typed error of calls: a code that travels between processes, and a message for people.
//
//	return nil, status.Errorf(status.NotFound, "no greeting in %q", req.Language) // in a handler
//	if status.CodeOf(err) == status.NotFound { … }                                // at the caller, in another process
//
// Codes, their numbers and their meaning are those of gRPC (google/rpc/code.proto), because everyone knows them.
package status

import (
	"context"
	"errors"
	"fmt"
)

// Code says what sort of error it is.
type Code uint32

// The codes.
const (
	OK                 Code = 0
	Canceled           Code = 1  // the caller gave up
	Unknown            Code = 2  // the handler returned an error without a code
	InvalidArgument    Code = 3  // the request is wrong, whatever the state of the service
	DeadlineExceeded   Code = 4  // it took longer than the caller's deadline
	NotFound           Code = 5  // what was asked for is not there
	AlreadyExists      Code = 6  // what was to be made is there already
	PermissionDenied   Code = 7  // the caller is known, and may not
	ResourceExhausted  Code = 8  // a limit or a quota is reached
	FailedPrecondition Code = 9  // the state of the service does not allow it
	Aborted            Code = 10 // a conflict, the caller may try the whole again
	OutOfRange         Code = 11
	Unimplemented      Code = 12 // no such endpoint or content type
	Internal           Code = 13 // a panic, or another bug
	Unavailable        Code = 14 // no node could be reached, or the connection was lost
	DataLoss           Code = 15
	Unauthenticated    Code = 16 // the caller is not known
)

var names = [...]string{"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
	"PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal",
	"Unavailable", "DataLoss", "Unauthenticated"}

// String is the name of the code.
func (c Code) String() string {
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("Code(%d)", uint32(c))
}

// Error is an error with a code.
type Error struct {
	Code    Code
	Message string
}

// Error is "NotFound: no greeting in "eo"".
func (e *Error) Error() string { return e.Code.String() + ": " + e.Message }

// Is makes errors.Is(err, context.DeadlineExceeded) and errors.Is(err, context.Canceled) hold for an error that came from
// another process, as they do for one of this process.
func (e *Error) Is(target error) bool {
	return e.Code == DeadlineExceeded && target == context.DeadlineExceeded || e.Code == Canceled && target == context.Canceled
}

// Errorf makes an *Error. It does not wrap: what %w names stays in this process.
func Errorf(c Code, format string, args ...any) error {
	return &Error{Code: c, Message: fmt.Errorf(format, args...).Error()}
}

// CodeOf is the code of err: OK for nil, that of an *Error wherever it is wrapped, that of an ended context,
// otherwise Unknown.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Unknown
}

// From returns err as an *Error, as it would travel to a caller: with its code, and with all of its text. Nil gives OK.
func From(err error) *Error {
	if err == nil {
		return &Error{}
	}
	var e *Error
	if errors.As(err, &e) && err.Error() == e.Error() {
		return e
	}
	return &Error{Code: CodeOf(err), Message: err.Error()}
}
