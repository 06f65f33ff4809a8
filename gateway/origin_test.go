package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/gateway"
)

func TestFromOtherOrigin(t *testing.T) {
	for name, c := range map[string]struct {
		header http.Header
		other  bool
	}{
		"no browser":                     {http.Header{}, false},
		"the own page":                   {http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"http://api.example:8080"}}, false},
		"behind a proxy":                 {http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"https://shop.example"}}, false},
		"typed, or a bookmark":           {http.Header{"Sec-Fetch-Site": {"none"}}, false},
		"another site":                   {http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"http://evil.example"}}, true},
		"another site, no origin":        {http.Header{"Sec-Fetch-Site": {"cross-site"}}, true},
		"another site, the own origin":   {http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"http://api.example:8080"}}, true},
		"a sibling":                      {http.Header{"Sec-Fetch-Site": {"same-site"}}, true},
		"a word nobody knows":            {http.Header{"Sec-Fetch-Site": {"sameorigin"}}, true},
		"an empty word":                  {http.Header{"Sec-Fetch-Site": {""}}, true},
		"two words":                      {http.Header{"Sec-Fetch-Site": {"none", "cross-site"}}, true},
		"an old browser":                 {http.Header{"Origin": {"http://evil.example"}}, true},
		"an old browser, the own page":   {http.Header{"Origin": {"http://api.example:8080"}}, false},
		"an old browser, capitals":       {http.Header{"Origin": {"http://API.example:8080"}}, false},
		"an old browser, TLS before":     {http.Header{"Origin": {"https://api.example:8080"}}, false},
		"an old browser, another port":   {http.Header{"Origin": {"http://api.example:8081"}}, true},
		"an old browser, no port":        {http.Header{"Origin": {"http://api.example"}}, true},
		"an old browser, the host below": {http.Header{"Origin": {"http://a.api.example:8080"}}, true},
		"a sandbox":                      {http.Header{"Origin": {"null"}}, true},
		"two origins":                    {http.Header{"Origin": {"http://api.example:8080", "http://evil.example"}}, true},
		"an empty origin":                {http.Header{"Origin": {""}}, true},
		"an origin without a scheme":     {http.Header{"Origin": {"api.example:8080"}}, true},
		"the host as user":               {http.Header{"Origin": {"http://api.example:8080@evil.example"}}, true},
		"the host as path":               {http.Header{"Origin": {"http://evil.example/api.example:8080"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/x", nil)
			r.Host, r.Header = "api.example:8080", c.header
			require.Equal(t, c.other, gateway.FromOtherOrigin(r))
		})
	}
}
