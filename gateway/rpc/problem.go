package rpc

import (
	"context"
	"errors"
	"net/http"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
)

// why is what a client of the gateway is told of a call or a stream that failed. What the endpoint answered with a
// code it hears as it is; an error without one was made for the log of the service, which has it. Of what failed on the way the
// log of the gateway has the details, with addresses.
func (h *Handler) why(ctx context.Context, t *target, err error) error {
	var failure *client.Failure
	failed := errors.As(err, &failure)
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		switch {
		case errors.Is(context.Cause(ctx), context.Canceled):
			return gateway.NewProblem(gateway.ClientClosed, "the client went before the answer came")
		case failed && !failure.MayHaveRun:
			return gateway.NewProblem(http.StatusServiceUnavailable, "the gateway stops: try again")
		}
		return gateway.NewProblem(http.StatusBadGateway,
			"the gateway stops, and service %s was not done with its answer: what was asked may have been done", t.service)
	}
	if !failed {
		if status.CodeOf(err) == status.Unknown {
			return status.Errorf(status.Unknown, "service %s failed: its log says more", t.service)
		}
		return err
	}
	p := problemOf(t, failure)
	if p.Status >= 500 && p.Status != http.StatusGatewayTimeout {
		h.failures.Warn(h.log, "calls fail on their way", "service", t.service, "endpoint", t.endpoint, "status", p.Status, "error", err)
	}
	return p
}

// notSent is why a message was not sent although its stream, if it is of one, lives on; nil: the stream has ended, and Recv
// says why.
func notSent(t *target, err error) *gateway.Problem {
	if !errors.Is(err, transport.ErrTooLarge) {
		return nil
	}
	return gateway.NewProblem(http.StatusRequestEntityTooLarge, "the request is larger than service %s takes", t.service)
}

func problemOf(t *target, f *client.Failure) *gateway.Problem {
	switch f.Status.Code {
	case status.DeadlineExceeded:
		return gateway.NewProblem(http.StatusGatewayTimeout, "service %s gave no answer in time", t.service)
	case status.Canceled:
		return gateway.NewProblem(gateway.ClientClosed, "the call was cancelled")
	case status.Unimplemented:
		return gateway.NewProblem(http.StatusNotImplemented, "the node of service %s that was asked has no endpoint %s", t.service, t.endpoint)
	case status.InvalidArgument:
		return gateway.NewProblem(http.StatusBadRequest, "the request has more metadata than a call can carry")
	case status.ResourceExhausted:
		if p := notSent(t, f); p != nil {
			return p
		}
		return gateway.NewProblem(http.StatusTooManyRequests, "service %s has too much to do: try again later", t.service)
	case status.Unavailable:
		if !f.MayHaveRun {
			return gateway.NewProblem(http.StatusServiceUnavailable, "no node of service %s can be reached", t.service)
		}
	}
	return gateway.NewProblem(http.StatusBadGateway, "service %s was lost before its answer came: what was asked may have been done", t.service)
}
