package page

import (
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/plugmicro/micro/gateway"
)

// admit refuses what another site had a browser ask for. What is no browser says nothing of sites, and may.
func (p *Page) admit(w http.ResponseWriter, r *http.Request) bool {
	if sameOrigin(r) {
		return true
	}
	p.Log.Warn("refused a request that another site had a browser make", "origin", r.Header.Get("Origin"), "path", r.URL.Path)
	gateway.Fail(w, r, gateway.NewProblem(http.StatusForbidden, "this was asked for by another site than the page itself"))
	return false
}

// sameOrigin goes by what browsers send: Origin, where there is one, must be this host; and Sec-Fetch-Site, which they
// leave out on plain HTTP but for localhost, may not tell of another site. It does not trust the former if the latter objects.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	u, err := url.Parse(origins[0])
	return err == nil && len(origins) == 1 && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// call calls the endpoint that the query names. Only what a page of another site cannot send without being asked about
// passes: JSON, or a WebSocket, which browsers never open without saying where from.
func (p *Page) call(w http.ResponseWriter, r *http.Request) {
	if !p.admit(w, r) {
		return
	}
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
