package router

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// mirror sends copies of requests to another upstream, whose answers nobody sees.
type mirror struct {
	upstream *upstreamSpec
	pool     *upstream
	fraction float64
	maxBody  int64
	seen     atomic.Uint64
}

const (
	maxMirrored   = 64               // copies on their way at once, of all routes
	mirrorTimeout = 10 * time.Second // for one
)

// notCopied are headers that copies do not have: nobody waits to go on with the body, and what becomes of a copy is not in
// the trace of the request.
var notCopied = []string{"Expect", "Traceparent", "Tracestate", "X-Amzn-Trace-Id"}

// due spreads the copies evenly.
func (mi *mirror) due() bool {
	n := mi.seen.Add(1)
	return uint64(float64(n)*mi.fraction) != uint64(float64(n-1)*mi.fraction)
}

// capture keeps what passes of a body, up to a limit.
type capture struct {
	limit int64
	mu    sync.Mutex
	buf   bytes.Buffer
	whole bool
	large bool
}

func (c *capture) add(p []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole = c.whole || err == io.EOF
	if c.large = c.large || int64(c.buf.Len()+len(p)) > c.limit; !c.large {
		c.buf.Write(p)
	}
}

// body returns the whole body, if it was small enough.
func (c *capture) body() ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.Bytes(), c.whole && !c.large
}

// mirror sends a copy of what x has sent, when it is over, unless the mirror is a service that the client may not ask. It does not
// wait: if there are too many copies, there is none.
func (m *Router) mirror(x *exchange) {
	mi := x.route.mirror
	if x.out == nil || x.out.Header.Get("Upgrade") != "" || !mi.due() {
		return
	}
	if service := mi.upstream.service; service != "" && x.info.Admit(service, "") != nil {
		m.metrics.mirrored(x.route, "refused")
		return
	}
	body := x.small
	if x.copied != nil {
		var whole bool
		if body, whole = x.copied.body(); !whole {
			m.metrics.mirrored(x.route, "too_large")
			return
		}
	}
	if int64(len(body)) > mi.maxBody {
		m.metrics.mirrored(x.route, "too_large")
		return
	}
	select {
	case m.mirrors <- struct{}{}:
	default:
		m.metrics.mirrored(x.route, "dropped")
		return
	}
	ctx, cancel := context.WithTimeout(m.ctx, mirrorTimeout)
	r := x.out.Clone(ctx)
	r.Body, r.GetBody, r.Trailer, r.TransferEncoding = http.NoBody, nil, nil, nil
	if r.ContentLength = int64(len(body)); len(body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	for _, name := range notCopied {
		delete(r.Header, name)
	}
	m.work.Go(func() {
		defer func() { <-m.mirrors }()
		defer cancel()
		m.metrics.mirrored(x.route, m.sendCopy(r, x, mi))
	})
}

func (m *Router) sendCopy(r *http.Request, x *exchange, mi *mirror) string {
	s, report, err := mi.pool.choose(nil)
	if err != nil {
		return "failed"
	}
	r.URL.Scheme, r.URL.Host = s.url.Scheme, s.url.Host
	setPath(r.URL, joinPath(s.url.Path, x.path))
	if x.route.rewrite.host == upstreamHost {
		r.Host = s.url.Host
	}
	res, err := m.roundTrip(r)
	report(err)
	if err != nil {
		return "failed"
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
	return "sent"
}
