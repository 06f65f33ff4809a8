package router

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// notTrailers are names, beside those of httpguts.ValidTrailerHeader, by which servers decide before they read a body.
var notTrailers = []string{"Cookie", "Set-Cookie", "Upgrade", "Origin", "X-Request-Id"}

// announceTrailer returns the trailers of the request that may be passed on, as yet without values. Servers may put them
// among the headers: none is passed on that is a header already, or that clients cannot send as one.
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
	change := &x.route.request
	_, set := change.set[name]
	_, added := change.add[name]
	return !set && !added && !slices.Contains(change.remove, name) && httpguts.ValidHeaderFieldName(name) && httpguts.ValidTrailerHeader(name) &&
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
