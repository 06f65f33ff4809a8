package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// atHand is the size of body that goes with the head in one write.
const atHand = 16 << 10

// message is a request in the form in which it is sent.
type message struct {
	buf    []byte        // the head, and the body if it is small
	body   io.ReadCloser // what else there is to send; nil: nothing, or an upload has it
	upload bool          // there is a body that is not in buf
	length int64         // of the body; -1: it is sent in chunks
	expect bool          // the body is sent when the server asks for it
}

var messages = sync.Pool{New: func() any { return new(message) }}

// newMessage closes the request's body if it returns an error, or a message that has it.
func newMessage(req *http.Request) (*message, error) {
	m := messages.Get().(*message)
	m.length, m.body = bodyLength(req), req.Body
	if err := m.make(req); err != nil {
		m.free()
		return nil, err
	}
	return m, nil
}

func (m *message) make(req *http.Request) error {
	if err := check(req); err != nil {
		return err
	}
	if err := m.head(req); err != nil {
		return err
	}
	if m.length == 0 {
		m.closeBody()
		return nil
	}
	m.expect = httpguts.HeaderValuesContainsToken(req.Header["Expect"], "100-continue")
	if m.length < 0 || m.length > atHand || m.expect {
		m.upload = true
		return nil
	}
	head := len(m.buf)
	m.buf = slices.Grow(m.buf, int(m.length))[:head+int(m.length)]
	err := readWhole(m.body, m.buf[head:])
	m.closeBody()
	return err
}

func (m *message) closeBody() {
	if m.body != nil {
		m.body.Close()
		m.body = nil
	}
}

// free gives it back, and closes the body if nobody has sent it.
func (m *message) free() {
	m.closeBody()
	const keep = 64 << 10
	if cap(m.buf) > keep {
		m.buf = nil
	}
	*m = message{buf: m.buf[:0]}
	messages.Put(m)
}

// repeatable says whether it can and may be sent once more, and sees to its body.
func (m *message) repeatable(req *http.Request, failed *Error) bool {
	if failed.Sent && !isIdempotent(req) {
		return false
	}
	if !m.upload || m.body != nil {
		return true
	}
	if req.GetBody == nil {
		return false
	}
	body, err := req.GetBody()
	m.body = body
	return err == nil
}

// isIdempotent says it as net/http does: PUT and DELETE are not among them.
func isIdempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	_, key := req.Header["Idempotency-Key"]
	_, x := req.Header["X-Idempotency-Key"]
	return key || x
}

// bodyLength is -1 for a body that must be sent in chunks.
func bodyLength(req *http.Request) int64 {
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return 0
	case req.ContentLength <= 0, len(req.TransferEncoding) > 0:
		return -1
	}
	return req.ContentLength
}

// readWhole reads a body that must be exactly as long as buf.
func readWhole(body io.Reader, buf []byte) error {
	if _, err := io.ReadFull(body, buf); err == io.EOF || err == io.ErrUnexpectedEOF {
		return errBodyTooShort
	} else if err != nil {
		return err
	}
	return atEnd(body)
}

// atEnd is nil if nothing is left to read.
func atEnd(body io.Reader) error {
	var b [1]byte
	n, err := io.ReadFull(body, b[:])
	if n > 0 {
		return errBodyTooLong
	}
	if err == io.EOF {
		return nil
	}
	return err
}

func check(req *http.Request) error {
	switch {
	case req.URL == nil:
		return errors.New("no URL")
	case req.URL.Scheme != "http":
		return fmt.Errorf("scheme %q: only http is supported", req.URL.Scheme)
	case req.URL.Host == "":
		return errors.New("no host in the URL")
	case req.Method == http.MethodConnect || req.Method != "" && !httpguts.ValidHeaderFieldName(req.Method):
		return fmt.Errorf("method %q", req.Method)
	case req.Header == nil:
		return errors.New("no Header")
	case req.ContentLength > 0 && (req.Body == nil || req.Body == http.NoBody):
		return fmt.Errorf("a ContentLength of %d without a body", req.ContentLength)
	}
	if err := checkHeader(req.Header); err != nil {
		return err
	}
	return checkHeader(req.Trailer)
}

// checkHeader does not say values, which may be secret.
func checkHeader(h http.Header) error {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("header name %q", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("the value of header %s cannot be sent", name)
			}
		}
	}
	return nil
}

func (m *message) head(req *http.Request) error {
	target := req.URL.RequestURI()
	if !isTarget(target) {
		return errors.New("a space or control character in the URL")
	}
	host, err := hostHeader(req)
	if err != nil {
		return err
	}
	method := req.Method
	if method == "" {
		method = http.MethodGet
	}
	b := append(append(append(m.buf[:0], method...), ' '), target...)
	b = append(append(append(b, " HTTP/1.1\r\nHost: "...), host...), "\r\n"...)
	if req.Close && !httpguts.HeaderValuesContainsToken(req.Header["Connection"], "close") {
		b = append(b, "Connection: close\r\n"...)
	}
	if m.length < 0 {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		if b, err = announce(b, req.Trailer); err != nil {
			return err
		}
	} else if m.length > 0 || method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), m.length, 10), "\r\n"...)
	}
	for name, values := range req.Header {
		if isFraming(name) || name == "User-Agent" && (len(values) == 0 || values[0] == "") {
			continue
		}
		for _, v := range values {
			b = append(append(append(append(b, name...), ": "...), textproto.TrimString(v)...), "\r\n"...)
		}
	}
	m.buf = append(b, "\r\n"...)
	return nil
}

// isFraming says whether a header is made by head, not taken as it is; in any case of letters, so that none is there twice.
func isFraming(name string) bool {
	switch len(name) {
	case len("Host"):
		return strings.EqualFold(name, "Host")
	case len("Trailer"):
		return strings.EqualFold(name, "Trailer")
	case len("Content-Length"):
		return strings.EqualFold(name, "Content-Length")
	case len("Transfer-Encoding"):
		return strings.EqualFold(name, "Transfer-Encoding")
	}
	return false
}

// announce writes which trailers follow the body.
func announce(b []byte, trailer http.Header) ([]byte, error) {
	if len(trailer) == 0 {
		return b, nil
	}
	names := make([]string, 0, len(trailer))
	for name := range trailer {
		if isFraming(name) {
			return b, fmt.Errorf("%s cannot be a trailer", name)
		}
		names = append(names, http.CanonicalHeaderKey(name))
	}
	slices.Sort(names)
	return append(append(append(b, "Trailer: "...), strings.Join(names, ",")...), "\r\n"...), nil
}

func isTarget(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func hostHeader(req *http.Request) (string, error) {
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	host, err := httpguts.PunycodeHostPort(host)
	if err != nil {
		return "", err
	}
	if !httpguts.ValidHostHeader(host) {
		return "", errors.New("a Host that cannot be sent")
	}
	return withoutZone(host), nil
}

// withoutZone removes the zone of an IPv6 address, which is nobody's business elsewhere (RFC 6874).
func withoutZone(host string) string {
	if !strings.HasPrefix(host, "[") {
		return host
	}
	end := strings.LastIndexByte(host, ']')
	zone := strings.LastIndexByte(host[:max(end, 0)], '%')
	if zone < 0 {
		return host
	}
	return host[:zone] + host[end:]
}
