package router

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/plugmicro/micro/tracing/httptrace"
)

// notTrailers are names, beside those of httpguts.ValidTrailerHeader, by which servers decide before they read a body.
// A trace, which the head of the request may have lost on purpose, is none of a trailer's.
var notTrailers = append([]string{"Cookie", "Set-Cookie", "Upgrade", "Origin", "X-Request-Id"}, httptrace.Headers...)

// announceTrailer returns the trailers of the request that may be passed on, as yet without values. Servers may put them
// among the headers: none is passed on that is a header already, or that clients cannot send as one, or that a middleware took out
// of the request's Trailer.
func (x *exchange) announceTrailer(header http.Header) http.Header {
	for name := range x.client.Trailer {
		if _, ok := header[name]; !ok && x.mayTrail(name) {
			if x.trailer == nil {
				x.trailer = make(http.Header)
			}
			x.trailer[name] = nil
		}
	}
	return x.trailer
}

func (x *exchange) mayTrail(name string) bool {
	return !x.route.request.names(name) && httpguts.ValidHeaderFieldName(name) && httpguts.ValidTrailerHeader(name) &&
		!strings.Contains(name, "_") && !strings.HasPrefix(name, "X-Forwarded-") && !slices.Contains(sayOfClient, name) && !slices.Contains(notTrailers, name)
}

// receiveTrailer is called at the end of the body: what comes without having been announced is left out.
func (x *exchange) receiveTrailer() {
	for name := range x.trailer {
		values := x.client.Trailer[name]
		if !slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }) {
			x.trailer[name] = values
		}
	}
}

// dropTrailer takes from an answer the trailers that would bring back what the route changes. It is called before they are
// announced, and when they are there.
func (x *exchange) dropTrailer(res *http.Response) {
	for name := range res.Trailer {
		if x.route.response.names(name) {
			delete(res.Trailer, name)
		}
	}
}
