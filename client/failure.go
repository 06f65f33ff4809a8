package client

import (
	"fmt"

	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/status"
)

// Failure is the error of a call or a stream that its endpoint did not answer: no node was known or could be reached, it
// refused, the time was up, the connection was lost. What an endpoint answers, and what middleware says, is none.
// errors.As finds it, and a *status.Error in it, whose text names services and addresses.
type Failure struct {
	Status     status.Error
	MayHaveRun bool // the request was on its way, so that the endpoint may have run
}

// Error implements error.
func (f *Failure) Error() string { return f.Status.Error() }

// Unwrap gives errors.As and status.CodeOf the code.
func (f *Failure) Unwrap() error { return &f.Status }

// failf is a Failure of a call that was not sent.
func failf(code status.Code, format string, args ...any) *Failure {
	return &Failure{Status: status.Error{Code: code, Message: fmt.Errorf(format, args...).Error()}}
}

// failure is e, told with what was called and where.
func failure(e *mux.Error, code status.Code, format string, args ...any) *Failure {
	f := failf(code, format, args...)
	f.MayHaveRun = !e.NotRun
	return f
}
