package page

import (
	"mime"
	"net/http"
	"net/url"

	"github.com/plugmicro/micro/gateway"
)

// call calls the endpoint that the query names. Only what a page of another site cannot send without being asked about
// passes: JSON, or a WebSocket, which browsers never open without saying where from.
func (p *Page) call(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	target := &gateway.Target{Service: query.Get("service"), Endpoint: query.Get("endpoint")}
	switch {
	case p.Call == nil:
		gateway.Fail(w, r, gateway.NewProblem(http.StatusNotImplemented, "this page calls nothing"))
		return
	case target.Service == "" || target.Endpoint == "":
		gateway.Fail(w, r, gateway.NewProblem(http.StatusBadRequest, "the query must name a service and an endpoint"))
		return
	case r.Method == http.MethodGet && gateway.IsWebSocket(r.Header):
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", "POST")
		gateway.Fail(w, r, gateway.NewProblem(http.StatusMethodNotAllowed, "calls are made by POST, or by WebSocket"))
		return
	case !isJSON(r):
		gateway.Fail(w, r, gateway.NewProblem(http.StatusUnsupportedMediaType, "the page calls with application/json"))
		return
	}
	info := *gateway.Of(r)
	info.Target = target
	r = gateway.With(r, &info)
	r.URL = &url.URL{Path: "/"}
	r.RequestURI = "/"
	p.Call.ServeHTTP(w, r)
}

func isJSON(r *http.Request) bool {
	typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && typ == "application/json"
}
