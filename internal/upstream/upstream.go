// Package upstream is the HTTP/1.1 client of a reverse proxy: an http.RoundTripper for http:// URLs whose requests are
// written and whose responses are read by the goroutine that asks. net/http's Transport hands each of them through two
// more goroutines, which costs more than all else that a proxy does.
//
//	t := upstream.New(upstream.Options{})
//	defer t.Close()
//	proxy := &httputil.ReverseProxy{Rewrite: rewrite, Transport: t}
//
// It is for proxies, and does less than a client for programs: no TLS, no HTTP/2, no proxies before it, no compression
// of its own, no User-Agent of its own, and of httptrace only Got1xxResponse. Responses are parsed by net/http.
package upstream

import (
	"cmp"
	"net"
	"net/http"
	"time"
)

// Options of a Transport. What is zero has the value that is named.
type Options struct {
	DialTimeout time.Duration // to connect; 5 s
	IdleTimeout time.Duration // how long a connection is kept that nothing uses; 60 s
}

// Transport is an http.RoundTripper. It is for concurrent use, and for many hosts. How long a response may take is for the
// context of its request. The head of one, informational ones before it included, has at most 256 KiB, and of each host at
// most 512 connections are kept that nothing uses.
//
// What differs from net/http's Transport:
//   - errors are of type *Error
//   - a body of at most 16 KiB, of a length that is known, is read before anything is sent, and makes a request replayable.
//     While it is read, RoundTrip does not heed the request's context; whoever reads it from a network bounds that
//   - a server that answers and stops reading is heard: its answer counts, not the failure to write
//   - after a request failed on a connection that was kept, it is repeated on a new one, not on another kept one
//   - a connection on which something waits to be read is never used for another request
//   - a body of unknown length is sent in chunks, whatever the method
//   - a status below 100 is an error, as are a Host and a request target that cannot be sent as they are
type Transport struct{ pool pool }

var _ http.RoundTripper = (*Transport)(nil)

// New returns a Transport. It needs no Close if it is used as long as the program runs.
func New(o Options) *Transport {
	return &Transport{pool{
		hosts:       make(map[string]*host),
		idleTimeout: cmp.Or(o.IdleTimeout, time.Minute),
		dialer:      net.Dialer{Timeout: cmp.Or(o.DialTimeout, 5*time.Second)},
	}}
}

// RoundTrip sends a request and returns its response, whose body the caller closes; that of a 101 is an
// io.ReadWriteCloser. The request's body is always closed, perhaps after RoundTrip has returned.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	m, err := newMessage(req)
	if err != nil {
		return nil, &Error{Phase: Request, Addr: addrOf(req), Err: err}
	}
	defer m.free()
	resp, fail := t.send(req, m, false)
	if fail != nil && fail.stale && m.repeatable(req, fail) {
		sent := fail.Sent
		if resp, fail = t.send(req, m, true); fail != nil {
			fail.Sent = fail.Sent || sent
		}
	}
	if fail != nil {
		return nil, fail
	}
	return resp, nil
}

func (t *Transport) send(req *http.Request, m *message, fresh bool) (*http.Response, *Error) {
	c, err := t.pool.get(req.Context(), req.URL.Host, fresh)
	if err != nil {
		return nil, &Error{Phase: Dial, Addr: req.URL.Host, Err: err}
	}
	return c.exchange(req, m)
}

// CloseIdleConnections closes the connections that nothing uses. http.Client calls it.
func (t *Transport) CloseIdleConnections() { t.pool.closeIdle() }

// Close closes them and keeps none from now on: requests go on, and more can be sent, each on a connection of its own.
func (t *Transport) Close() error {
	t.pool.close()
	return nil
}
