package router

import (
	"maps"
	"net/http"

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

func (w *writer) inform(status int) {
	h := w.ResponseWriter.Header()
	kept := maps.Clone(h)
	clear(h)
	maps.Copy(h, w.hints)
	w.ResponseWriter.WriteHeader(status)
	clear(h)
	maps.Copy(h, kept)
}
