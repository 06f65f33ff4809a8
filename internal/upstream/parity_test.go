package upstream_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/upstream"
)

// heard is what can be told apart of a response.
type heard struct {
	Failed  bool
	Status  string
	Proto   string
	Header  http.Header
	Length  int64
	Coding  []string
	Close   bool
	Body    string
	BodyErr bool
	Trailer http.Header
}

func hear(tr http.RoundTripper, req *http.Request) heard {
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return heard{Failed: true}
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return heard{Status: resp.Status, Header: resp.Header}
	}
	body, err := io.ReadAll(resp.Body)
	return heard{
		false, resp.Status, resp.Proto, resp.Header, resp.ContentLength, resp.TransferEncoding, resp.Close, string(body), err != nil,
		resp.Trailer,
	}
}

// TestResponsesAreThoseOfNetHTTP sends the same to net/http's Transport.
func TestResponsesAreThoseOfNetHTTP(t *testing.T) {
	for name, c := range map[string]struct{ method, response string }{
		"length":                   {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"},
		"no body":                  {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"length twice":             {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"},
		"two lengths":              {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"},
		"length with a sign":       {"GET", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"},
		"negative length":          {"GET", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"},
		"list of lengths":          {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello"},
		"empty length":             {"GET", "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello"},
		"length too long":          {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello"},
		"length too short":         {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello"},
		"until the end":            {"GET", "HTTP/1.1 200 OK\r\n\r\nhello"},
		"HTTP/1.0":                 {"GET", "HTTP/1.0 200 OK\r\n\r\nhello"},
		"HTTP/1.0 kept alive":      {"GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"},
		"HTTP/1.0 chunked":         {"GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"HTTP/2.0":                 {"GET", "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"},
		"HTTP/11.1":                {"GET", "HTTP/11.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"},
		"chunked":                  {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"chunk extension":          {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n"},
		"chunks in capitals":       {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\nA\r\nhellohello\r\n0\r\n\r\n"},
		"chunk without an end":     {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloo\r\n0\r\n\r\n"},
		"chunk of no number":       {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"},
		"chunk with a sign":        {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"},
		"chunk with LF":            {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"},
		"chunk that is huge":       {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n"},
		"chunks cut":               {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"},
		"chunks cut in one":        {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"},
		"length and chunks":        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"gzip, chunked":            {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"chunked twice":            {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"identity":                 {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"},
		"vertical tab chunked":     {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"trailers":                 {"GET", "HTTP/1.1 200 OK\r\nTrailer: Sum, Other\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nSum: 7\r\n\r\n"},
		"trailers not said":        {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nSum: 7\r\n\r\n"},
		"a trailer that frames":    {"GET", "HTTP/1.1 200 OK\r\nTrailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"trailers cut":             {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nSum: 7"},
		"long trailers":            {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nSum: " + strings.Repeat("7", 9000) + "\r\n\r\n"},
		"HEAD":                     {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"},
		"HEAD with a body":         {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"},
		"HEAD chunked":             {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"HEAD of a wrong length":   {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"},
		"204":                      {"GET", "HTTP/1.1 204 No Content\r\n\r\n"},
		"204 with a length":        {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"},
		"304":                      {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n"},
		"304 chunked":              {"GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"100 before":               {"GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"},
		"103 twice before":         {"GET", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\n" + ok},
		"102 and the end":          {"GET", "HTTP/1.1 102 Processing\r\n\r\n"},
		"101":                      {"GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"},
		"101 to nothing":           {"GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
		"close":                    {"GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"},
		"close, and more":          {"GET", "HTTP/1.1 200 OK\r\nConnection: x, close\r\n\r\nhello"},
		"no reason":                {"GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"},
		"status 999":               {"GET", "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n"},
		"status of two digits":     {"GET", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"},
		"status of four digits":    {"GET", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"},
		"no status":                {"GET", "HTTP/1.1\r\nContent-Length: 0\r\n\r\n"},
		"not HTTP":                 {"GET", "SSH-2.0-OpenSSH_9\r\n"},
		"nothing":                  {"GET", ""},
		"half a head":              {"GET", "HTTP/1.1 200 OK\r\nContent-Le"},
		"garbage before":           {"GET", "xxHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"an empty line before":     {"GET", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"LF alone":                 {"GET", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"},
		"folded":                   {"GET", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n"},
		"folded first":             {"GET", "HTTP/1.1 200 OK\r\n A: b\r\nContent-Length: 0\r\n\r\n"},
		"a space before the colon": {"GET", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello"},
		"no colon":                 {"GET", "HTTP/1.1 200 OK\r\nContent-Length\r\n\r\nhello"},
		"no name":                  {"GET", "HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n"},
		"CR in a value":            {"GET", "HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 0\r\n\r\n"},
		"NUL in a value":           {"GET", "HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 0\r\n\r\n"},
		"lines of one name":        {"GET", "HTTP/1.1 200 OK\r\nset-cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"},
		"Pragma":                   {"GET", "HTTP/1.1 200 OK\r\nPragma: no-cache\r\nContent-Length: 0\r\n\r\n"},
		"compressed":               {"GET", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"},
		"POST":                     {"POST", "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello"},
		"two responses":            {"GET", ok + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"},
		"large":                    {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("0123456789", 30000)},
	} {
		t.Run(name, func(t *testing.T) {
			url := script(t, func(p *peer) {
				if p.request() != nil {
					p.say(c.response)
				}
			})
			want := hear(reference(t), newRequest(t, c.method, url, nil))
			require.Equal(t, want, hear(start(t, upstream.Options{}), newRequest(t, c.method, url, nil)))
		})
	}
}

func reference(t *testing.T) http.RoundTripper {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// TestRequestsAreThoseOfNetHTTP compares what servers see, but for the order of headers.
func TestRequestsAreThoseOfNetHTTP(t *testing.T) {
	long := strings.Repeat("0123456789", 20_000)
	for name, change := range map[string]func(*http.Request){
		"GET":                   func(*http.Request) {},
		"HEAD":                  func(r *http.Request) { r.Method = "HEAD" },
		"no method":             func(r *http.Request) { r.Method = "" },
		"a method of one's own": func(r *http.Request) { r.Method = "FROB" },
		"POST without a body":   func(r *http.Request) { r.Method = "POST" },
		"PUT without a body":    func(r *http.Request) { r.Method = "PUT"; r.Body = http.NoBody },
		"DELETE":                func(r *http.Request) { r.Method = "DELETE" },
		"small body":            func(r *http.Request) { setBody(r, "POST", "hello", 5) },
		"body of GET":           func(r *http.Request) { setBody(r, "GET", "hello", 5) },
		"large body":            func(r *http.Request) { setBody(r, "POST", long, int64(len(long))) },
		"unknown length":        func(r *http.Request) { setBody(r, "POST", long, -1) },
		"unknown, and 0":        func(r *http.Request) { setBody(r, "POST", "hello", 0) },
		"unknown and empty":     func(r *http.Request) { setBody(r, "POST", "", -1) },
		"chunked by name":       func(r *http.Request) { setBody(r, "POST", "hello", 5); r.TransferEncoding = []string{"chunked"} },
		"trailers": func(r *http.Request) {
			setBody(r, "POST", "hello", -1)
			r.Trailer = http.Header{"Sum": {"7"}, "Other": {"8"}}
		},
		"trailers without chunks": func(r *http.Request) {
			setBody(r, "POST", "hello", 5)
			r.Trailer = http.Header{"Sum": {"7"}}
		},
		"headers": func(r *http.Request) {
			r.Header = http.Header{"A": {"1", "2"}, "B": {""}, "C": {" spaces\t"}, "User-Agent": {"x"}, "D-ü": nil}
			delete(r.Header, "D-ü")
		},
		"a host of one's own": func(r *http.Request) { r.Host = "example.com:8080" },
		"a host with a zone":  func(r *http.Request) { r.Host = "[fe80::1%en0]:80" },
		"a host in unicode":   func(r *http.Request) { r.Host = "bücher.example" },
		"close":               func(r *http.Request) { r.Close = true },
		"close twice":         func(r *http.Request) { r.Close = true; r.Header.Set("Connection", "close") },
		"query":               func(r *http.Request) { r.URL.RawQuery = "a=b%20c&;" },
		"empty query":         func(r *http.Request) { r.URL.ForceQuery = true },
		"path":                func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/a/b c/ü", "/a%2Fb c" },
		"raw path":            func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/a/b", "/a%2Fb" },
		"opaque":              func(r *http.Request) { r.URL.Opaque = "/a%2fb" },
		"framing by hand": func(r *http.Request) {
			r.Header["Content-Length"] = []string{"77"}
			r.Header["Transfer-Encoding"] = []string{"chunked"}
			r.Header["Host"] = []string{"other"}
			r.Header["Trailer"] = []string{"X"}
		},
		"upgrade": func(r *http.Request) { r.Header.Set("Connection", "Upgrade"); r.Header.Set("Upgrade", "websocket") },
		"te":      func(r *http.Request) { r.Header.Set("Te", "trailers") },
		"expect":  func(r *http.Request) { setBody(r, "POST", "hello", 5); r.Header.Set("Expect", "100-continue") },

		"CR in a value":   func(r *http.Request) { r.Header["A"] = []string{"b\r\nC: d"} },
		"NUL in a value":  func(r *http.Request) { r.Header["A"] = []string{"b\x00"} },
		"space in a name": func(r *http.Request) { r.Header["A b"] = []string{"c"} },
		"bad trailer":     func(r *http.Request) { setBody(r, "POST", "x", -1); r.Trailer = http.Header{"Content-Length": nil} },
		"bad method":      func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX:" },
		"control in path": func(r *http.Request) { r.URL.Opaque = "/a\r\nb" },
		"no such scheme":  func(r *http.Request) { r.URL.Scheme = "gopher" },
		"no host":         func(r *http.Request) { r.URL.Host = "" },
		"no URL":          func(r *http.Request) { r.URL = nil },
		"no header":       func(r *http.Request) { r.Header = nil },
		"short body":      func(r *http.Request) { setBody(r, "POST", "hell", 5) },
		"short long body": func(r *http.Request) { setBody(r, "POST", long, int64(len(long)+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan string, 8)
			url := script(t, func(p *peer) {
				if r := p.request(); r != nil {
					body, _ := io.ReadAll(r.Body)
					seen <- fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Host, r.Header, r.ContentLength, r.TransferEncoding, r.Close,
						r.Trailer, string(body))
					p.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
				}
			})
			var got [2]string
			for i, tr := range []http.RoundTripper{reference(t), start(t, upstream.Options{})} {
				req := newRequest(t, "GET", url, nil)
				change(req)
				closed := &closeCounter{ReadCloser: req.Body}
				if req.Body != nil && req.Body != http.NoBody {
					req.Body = closed
				}
				resp, err := tr.RoundTrip(req)
				if err != nil {
					got[i] = "failed"
				} else {
					resp.Body.Close()
					got[i] = <-seen
				}
				if req.Body == closed {
					closed.wait(t)
				}
			}
			require.Equal(t, got[0], got[1])
		})
	}
}

func setBody(r *http.Request, method, body string, length int64) {
	r.Method, r.Body, r.ContentLength = method, io.NopCloser(bytes.NewBufferString(body)), length
}
