package client

import (
	"errors"
	"fmt"

	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/status"
)

// Failure is the error of a call or a stream that its endpoint did not answer: no node was known or could be reached, it
// refused, the time was up, the connection was lost. What an endpoint answers, and what middleware says, is none.
// errors.As finds it, and a *status.Error in it, whose text names services and addresses; errors.Is finds what is known of
// the cause, such as transport.ErrTooLarge and registry.ErrClosed.
type Failure struct {
	Status     status.Error
	MayHaveRun bool // the request was on its way, so that the endpoint may have run

	cause error // nil: there is none but the status
}

// Error implements error.
func (f *Failure) Error() string { return f.Status.Error() }

// Unwrap gives errors.As and status.CodeOf the code, and errors.Is the cause.
func (f *Failure) Unwrap() []error {
	if f.cause == nil {
		return []error{&f.Status}
	}
	return []error{&f.Status, f.cause}
}

// failf is a Failure of a call that was not sent.
func failf(code status.Code, format string, args ...any) *Failure {
	err := fmt.Errorf(format, args...)
	return &Failure{Status: status.Error{Code: code, Message: err.Error()}, cause: errors.Unwrap(err)}
}

// failure is e, told with what was called and where.
func failure(e *mux.Error, code status.Code, format string, args ...any) *Failure {
	f := failf(code, format, args...)
	f.MayHaveRun, f.cause = !e.NotRun, e.Cause
	return f
}
