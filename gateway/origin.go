package gateway

import (
	"net/http"
	"strings"
)

// FromOtherOrigin says whether a page of another origin had a browser send r, as far as browsers tell: by Sec-Fetch-Site, and
// by Origin where they leave that out, as old ones do, and all on plain HTTP but to localhost. The scheme of Origin is not
// asked: a proxy may have taken TLS off. What is no browser sends neither, and is of no origin.
func FromOtherOrigin(r *http.Request) bool {
	if site := r.Header["Sec-Fetch-Site"]; len(site) > 0 {
		return len(site) > 1 || site[0] != "same-origin" && site[0] != "none"
	}
	origin := r.Header["Origin"]
	if len(origin) == 0 {
		return false
	}
	_, host, ok := strings.Cut(origin[0], "://")
	return len(origin) > 1 || !ok || !strings.EqualFold(host, r.Host)
}
