// Package gzip compresses answers for clients that take it:
//
//	micro gateway --gateway-middleware=gzip,router
//
// Streams stay streams: what is flushed is sent. Events for browsers (text/event-stream), WebSockets, what is compressed
// already and what is small are left as they are.
package gzip

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/klauspost/compress/gzhttp"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/plugin"
)

func init() { plugin.Register("gzip", New, plugin.Doc("compresses answers")) }

// Config is what --middleware-gzip-* sets.
type Config struct {
	MinSize plugin.Size `default:"1KiB" help:"answers that are smaller are not compressed"`
	Level   int         `default:"5" help:"1 is fast, 9 is small"`
}

// Validate is for package plugin.
func (c *Config) Validate() error {
	if c.Level < 1 || c.Level > 9 {
		return fmt.Errorf("level %d: want 1 to 9", c.Level)
	}
	if c.MinSize < 0 {
		return fmt.Errorf("min-size %s: want 0 or more", c.MinSize)
	}
	return nil
}

// New makes the middleware.
func New(_ *plugin.Env, c Config) (gateway.Middleware, error) {
	wrap, err := gzhttp.NewWrapper(gzhttp.MinSize(int(c.MinSize)), gzhttp.CompressionLevel(c.Level), gzhttp.SetContentType(false),
		gzhttp.ContentTypeFilter(compressible))
	if err != nil {
		return nil, err
	}
	return gateway.Func(func(next http.Handler) http.Handler {
		compressing := wrap(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if gateway.IsWebSocket(r.Header) || strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
				next.ServeHTTP(w, r)
				return
			}
			compressing.ServeHTTP(w, r)
		})
	}), nil
}

// compressible leaves out what gains nothing, and events, which are small and have to come at once.
func compressible(contentType string) bool {
	t, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	switch t = strings.TrimSpace(t); {
	case t == "text/event-stream" || t == "application/octet-stream" || strings.HasPrefix(t, "font/woff"):
		return false
	case strings.HasPrefix(t, "image/"):
		return t == "image/svg+xml" || t == "image/bmp"
	}
	return gzhttp.DefaultContentTypeFilter(contentType)
}
