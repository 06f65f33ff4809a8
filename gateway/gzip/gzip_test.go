package gzip_test

import (
	"bufio"
	stdgzip "compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway/gzip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers through the middleware, on a real connection.
func serve(t *testing.T, c gzip.Config, h http.HandlerFunc) (get func(headers ...string) *http.Response) {
	m, err := gzip.New(nil, c)
	require.NoError(t, err)
	srv := httptest.NewServer(m.Handler(h))
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(func() { client.CloseIdleConnections(); srv.Close() })
	return func(headers ...string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
		require.NoError(t, err)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		rsp, err := client.Do(r)
		require.NoError(t, err)
		t.Cleanup(func() { rsp.Body.Close() })
		return rsp
	}
}

var long = `{"a":"` + strings.Repeat("x", 4000) + `"}`

func TestCompresses(t *testing.T) {
	get := serve(t, gzip.Config{MinSize: 1024, Level: 5}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, long)
	})
	rsp := get("Accept-Encoding", "gzip")
	require.Equal(t, "gzip", rsp.Header.Get("Content-Encoding"))
	require.Contains(t, rsp.Header.Values("Vary"), "Accept-Encoding")
	body, err := stdgzip.NewReader(rsp.Body)
	require.NoError(t, err)
	data, err := io.ReadAll(body)
	require.NoError(t, err)
	require.Equal(t, long, string(data))

	for _, headers := range [][]string{{}, {"Accept-Encoding", "gzip;q=0"}, {"Accept-Encoding", "br"}} {
		rsp := get(headers...)
		require.Empty(t, rsp.Header.Get("Content-Encoding"))
		data, err := io.ReadAll(rsp.Body)
		require.NoError(t, err)
		require.Equal(t, long, string(data))
	}
}

func TestLeavesAlone(t *testing.T) {
	for name, c := range map[string]struct{ contentType, encoding, body string }{
		"small":              {"application/json", "", "{}"},
		"compressed already": {"application/json", "br", long},
		"a picture":          {"image/png", "", long},
		"events":             {"text/event-stream", "", long},
	} {
		t.Run(name, func(t *testing.T) {
			get := serve(t, gzip.Config{MinSize: 1024, Level: 5}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", c.contentType)
				if c.encoding != "" {
					w.Header().Set("Content-Encoding", c.encoding)
				}
				_, _ = io.WriteString(w, c.body)
			})
			rsp := get("Accept-Encoding", "gzip")
			require.Equal(t, c.encoding, rsp.Header.Get("Content-Encoding"))
			data, err := io.ReadAll(rsp.Body)
			require.NoError(t, err)
			require.Equal(t, c.body, string(data))
		})
	}
}

// TestStreams holds that a line that is flushed arrives before the next one is made.
func TestStreams(t *testing.T) {
	for name, accept := range map[string]string{"application/x-ndjson": "*/*", "text/event-stream": "text/event-stream"} {
		t.Run(name, func(t *testing.T) {
			goOn := make(chan struct{})
			get := serve(t, gzip.Config{MinSize: 1024, Level: 5}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", name)
				for range 3 {
					_, _ = io.WriteString(w, "{}\n")
					_ = http.NewResponseController(w).Flush()
					<-goOn
				}
			})
			rsp := get("Accept-Encoding", "gzip", "Accept", accept)
			body := io.Reader(rsp.Body)
			if rsp.Header.Get("Content-Encoding") == "gzip" {
				var err error
				body, err = stdgzip.NewReader(rsp.Body)
				require.NoError(t, err)
			}
			lines := bufio.NewReader(body)
			for range 3 {
				line, err := lines.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, "{}\n", line)
				goOn <- struct{}{}
			}
		})
	}
}

func TestValidate(t *testing.T) {
	require.ErrorContains(t, (&gzip.Config{Level: 10}).Validate(), "level 10")
	require.ErrorContains(t, (&gzip.Config{Level: 5, MinSize: -1}).Validate(), "min-size")
	require.NoError(t, (&gzip.Config{Level: 5}).Validate())
}
