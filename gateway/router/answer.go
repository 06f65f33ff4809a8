package router

import (
	"maps"
	"net/http"
	"strings"

	"github.com/plugmicro/micro/gateway"
)

// writer is what the proxy answers to. ReverseProxy clears the header after each informational answer; here that header is
// one of its own, so that what was set for the final answer stays, and does not go out before.
type writer struct {
	http.ResponseWriter
	x     *exchange
	hints http.Header // of an informational answer
	final bool        // what is written now is the final one
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) Header() http.Header {
	if w.final {
		return w.ResponseWriter.Header()
	}
	if w.hints == nil {
		w.hints = make(http.Header)
	}
	return w.hints
}

// WriteHeader has the connection closed after an answer that comes before the request has ended: what follows on it may be the
// rest of that.
func (w *writer) WriteHeader(status int) {
	switch {
	case !w.final:
		w.inform(status)
		return
	case w.x.client.ProtoMajor == 1 && w.x.client.ContentLength != 0 && !w.x.upload.wasWhole():
		gateway.EndAfterAnswer(w.ResponseWriter)
	}
	w.ResponseWriter.WriteHeader(status)
}

// ofConnection are headers that end at a proxy, beside those that Connection names: RFC 9110, 7.6.1. ReverseProxy removes them
// from final answers.
var ofConnection = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// inform passes an informational answer on, to clients that know of such: RFC 9110, 15.2.
func (w *writer) inform(status int) {
	if !w.x.client.ProtoAtLeast(1, 1) {
		return
	}
	for _, line := range w.hints["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			w.hints.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range ofConnection {
		delete(w.hints, name)
	}
	w.x.route.response.hold(w.hints)
	h := w.ResponseWriter.Header()
	kept := maps.Clone(h)
	clear(h)
	maps.Copy(h, w.hints)
	w.ResponseWriter.WriteHeader(status)
	clear(h)
	maps.Copy(h, kept)
}
