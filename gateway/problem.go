package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/plugmicro/micro/status"
)

// Problem is the one form in which the gateway and its middlewares refuse: RFC 9457, application/problem+json. Detail is
// for strangers to read.
type Problem struct {
	Title  string `json:"title"`            // of the status, as in "Not Found"
	Status int    `json:"status"`           // of HTTP
	Code   string `json:"code"`             // of package status, as in "NotFound"
	Detail string `json:"detail,omitempty"` // what is wrong, and what to do
	ID     string `json:"request_id,omitempty"`
}

// ClientClosed is the status of a request whose client is gone, so that nobody reads it but the log: nginx's 499.
const ClientClosed = 499

// NewProblem makes a Problem of a status of HTTP.
func NewProblem(httpStatus int, format string, args ...any) *Problem {
	return &Problem{Title: title(httpStatus), Status: httpStatus, Code: codeOf(httpStatus).String(), Detail: fmt.Sprintf(format, args...)}
}

// Error implements error.
func (p *Problem) Error() string { return strconv.Itoa(p.Status) + " " + p.Title + ": " + p.Detail }

// ProblemOf makes a Problem of any error: a *Problem as it is, an error of a call by its code.
func ProblemOf(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	e := status.From(err)
	s := HTTPStatus(e.Code)
	return &Problem{Title: title(s), Status: s, Code: e.Code.String(), Detail: e.Message}
}

// Fail answers with a Problem, which ends the request. What was set in w's header stays, but for what describes a body.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	p := *ProblemOf(err)
	p.ID = Of(r).ID
	h := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified", "Cache-Control"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_ = json.NewEncoder(w).Encode(&p) // who does not read it is gone
	}
}

// EndAfterAnswer has net/http close the connection of HTTP/1 after the answer, and not before a client that still sends could
// read it. It is for answers that come before the body of the request has ended, and is called before WriteHeader.
func EndAfterAnswer(w http.ResponseWriter) {
	for u, ok := w.(unwrapper); ok; u, ok = w.(unwrapper) {
		w = u.Unwrap()
	}
	// What does that is for readers that came to their limit.
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
}

type unwrapper interface{ Unwrap() http.ResponseWriter }

func title(httpStatus int) string {
	if httpStatus == ClientClosed {
		return "Client Closed Request"
	}
	return http.StatusText(httpStatus)
}

// HTTPStatus is the status for the code of a call, as google/rpc/code.proto maps them.
func HTTPStatus(c status.Code) int {
	switch c {
	case status.OK:
		return http.StatusOK
	case status.Canceled:
		return ClientClosed
	case status.InvalidArgument, status.FailedPrecondition, status.OutOfRange:
		return http.StatusBadRequest
	case status.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case status.NotFound:
		return http.StatusNotFound
	case status.AlreadyExists, status.Aborted:
		return http.StatusConflict
	case status.PermissionDenied:
		return http.StatusForbidden
	case status.Unauthenticated:
		return http.StatusUnauthorized
	case status.ResourceExhausted:
		return http.StatusTooManyRequests
	case status.Unimplemented:
		return http.StatusNotImplemented
	case status.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// codeOf is the other way round, for what the gateway refuses itself.
func codeOf(httpStatus int) status.Code {
	switch httpStatus {
	case http.StatusUnauthorized:
		return status.Unauthenticated
	case http.StatusForbidden:
		return status.PermissionDenied
	case http.StatusNotFound:
		return status.NotFound
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return status.Unimplemented
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return status.DeadlineExceeded
	case http.StatusTooManyRequests:
		return status.ResourceExhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return status.Unavailable
	case http.StatusConflict:
		return status.Aborted
	case ClientClosed:
		return status.Canceled
	}
	if httpStatus < 500 {
		return status.InvalidArgument
	}
	return status.Internal
}
