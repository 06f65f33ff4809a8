package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// Prepare brings host, path, query and Upgrade of a request into the one form that is routed, authorised and forwarded. Its
// error, a *Problem, says what cannot be brought into it. It returns the host without its port.
//
//   - host: lower case, without a final dot; a name, or an address
//   - path: decoded once, "." and ".." resolved, slashes in a row made one. Refused are paths with an encoded slash or
//     backslash, with a backslash, control characters or invalid UTF-8, and those that climb above the root. What
//     is forwarded is that path, encoded again, a semicolon always as %3B.
//   - query: refused if it has a semicolon or a broken escape, which servers read in different ways
//   - headers: those with an underscore are removed, which servers behind take for those with a dash; refused is a
//     Connection that names one of them, which would have it seen here and not there
//   - Upgrade: removed unless it is websocket alone; h2c would carry requests past everything (go.dev/issue/80416)
func Prepare(r *http.Request) (host string, err error) {
	if r.Method == http.MethodConnect {
		return "", NewProblem(http.StatusMethodNotAllowed, "this is no proxy: CONNECT is not answered")
	}
	if r.Host, host, err = normalHost(r.Host); err != nil {
		return "", err
	}
	r.URL.Host = ""
	r.URL.Scheme = ""
	if !isPlain(r.URL) {
		if err := normalisePath(r.URL); err != nil {
			return "", err
		}
	}
	if err := checkQuery(r.URL.RawQuery); err != nil {
		return "", err
	}
	return host, prepareHeader(r.Header)
}

func normalHost(h string) (whole, name string, err error) {
	if isPlainHost(h) {
		return h, h, nil
	}
	whole = strings.ToLower(h)
	name, port := whole, ""
	if i := strings.LastIndexByte(whole, ':'); i >= 0 && !strings.HasSuffix(whole, "]") {
		name, port = whole[:i], whole[i:]
	}
	if literal, ok := strings.CutPrefix(name, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(literal, "]"))
		if err != nil || !strings.HasSuffix(literal, "]") || addr.Zone() != "" || !addr.Is6() || !isPort(port) {
			return "", "", NewProblem(http.StatusBadRequest, "the Host header is no host")
		}
		return whole, addr.String(), nil
	}
	name = strings.TrimSuffix(name, ".")
	if !isHostName(name) || !isPort(port) {
		return "", "", NewProblem(http.StatusBadRequest, "the Host header is no host")
	}
	return name + port, name, nil
}

// isPlainHost is the usual case.
func isPlainHost(h string) bool {
	for i := range len(h) {
		if c := h[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && (c != '.' || i == 0 || h[i-1] == '.' || i == len(h)-1) {
			return false
		}
	}
	return h != "" && len(h) <= 253
}

// isHostName takes underscores too, which names of containers have.
func isHostName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && (c != '.' || i == 0 || s[i-1] == '.') {
			return false
		}
	}
	return s != "" && s[len(s)-1] != '.' && len(s) <= 253
}

func isPort(s string) bool {
	if s == "" {
		return true
	}
	for _, c := range s[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(s) <= 6
}

// isPlain is the usual case: nothing in the path can be read in two ways.
func isPlain(u *url.URL) bool {
	p := u.Path
	if u.RawPath != "" || p == "" || p[0] != '/' {
		return false
	}
	for i := 1; i < len(p); i++ {
		c := p[i]
		if c <= ' ' || c >= 0x7f || c == '\\' || c == ';' || c == '%' || (p[i-1] == '/' && (c == '/' || c == '.')) {
			return false
		}
	}
	return true
}

func normalisePath(u *url.URL) error {
	p := u.Path
	raw := strings.ToLower(u.EscapedPath())
	switch {
	case p == "" || p[0] != '/':
		return NewProblem(http.StatusBadRequest, "the path must begin with a slash")
	case strings.Contains(raw, "%2f") || strings.Contains(raw, "%5c") || strings.ContainsRune(p, '\\'):
		return NewProblem(http.StatusBadRequest, "the path has an encoded slash or a backslash, which can be read in two ways")
	case !utf8.ValidString(p) || strings.ContainsFunc(p, isControl):
		return NewProblem(http.StatusBadRequest, "the path has a control character or is no UTF-8")
	case climbs(p):
		return NewProblem(http.StatusBadRequest, "the path climbs above the root")
	}
	clean := path.Clean(p)
	if clean != "/" && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..")) {
		clean += "/"
	}
	u.Path = clean
	u.RawPath = ""
	if escaped := u.EscapedPath(); strings.Contains(escaped, ";") {
		u.RawPath = strings.ReplaceAll(escaped, ";", "%3B")
	}
	return nil
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// climbs says whether ".." leads above the root.
func climbs(p string) bool {
	depth := 0
	for segment := range strings.SplitSeq(p, "/") {
		switch segment {
		case "", ".":
		case "..":
			depth--
		default:
			depth++
		}
		if depth < 0 {
			return true
		}
	}
	return false
}

func checkQuery(q string) error {
	for i := 0; i < len(q); i++ {
		switch c := q[i]; {
		case c == ';':
			return NewProblem(http.StatusBadRequest, "the query has a semicolon: write %%3B for one in a value")
		case c == '%' && (i+2 >= len(q) || !isHex(q[i+1]) || !isHex(q[i+2])):
			return NewProblem(http.StatusBadRequest, "the query has a %% that begins no escape: write %%25")
		case c <= ' ' || c == 0x7f:
			return NewProblem(http.StatusBadRequest, "the query has a control character or a space")
		case c == '#':
			return NewProblem(http.StatusBadRequest, "the query has a #, at which servers may end it: write %%23 for one in a value")
		}
	}
	return nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func prepareHeader(h http.Header) error {
	for name := range h {
		if strings.IndexByte(name, '_') >= 0 {
			delete(h, name)
		}
	}
	for _, line := range h["Connection"] {
		for token := range strings.SplitSeq(line, ",") {
			token = http.CanonicalHeaderKey(strings.TrimSpace(token))
			if _, there := h[token]; there && !isOfConnection(token) {
				return NewProblem(http.StatusBadRequest, "the header Connection names a header that is not of the connection")
			}
		}
	}
	dropUpgrade(h)
	return nil
}

// isOfConnection says whether RFC 9110, 7.6.1, has a header of that name end here.
func isOfConnection(name string) bool {
	switch strings.ToLower(name) {
	case "close", "keep-alive", "upgrade", "te", "trailer", "http2-settings", "proxy-connection":
		return true
	}
	return false
}

// dropUpgrade leaves an Upgrade to a WebSocket only.
func dropUpgrade(h http.Header) {
	if IsWebSocket(h) {
		return
	}
	if _, ok := h["Upgrade"]; !ok && h["Http2-Settings"] == nil {
		return
	}
	h.Del("Upgrade")
	h.Del("Http2-Settings")
	h.Del("Connection") // a server keeps the connection by its own rules
}

// IsWebSocket says whether a request with the header h asks for a WebSocket, and for nothing else.
func IsWebSocket(h http.Header) bool {
	v := h["Upgrade"]
	return len(v) == 1 && strings.EqualFold(v[0], "websocket")
}

// HasPrefix says whether path is prefix or below it: "/api" has below it "/api" and "/api/x", not "/apis".
func HasPrefix(path, prefix string) bool {
	prefix = strings.TrimSuffix(prefix, "/")
	return strings.HasPrefix(path, prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/')
}

// MatchHost says whether host, as Prepare returns it, is pattern, as CheckHost returns it: a name, an address,
// "*.example.com" for the names one level or more below, or "*".
func MatchHost(host, pattern string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(host) > len(suffix) && strings.HasSuffix(host, suffix) && net.ParseIP(host) == nil || suffix == ""
	}
	return host == pattern
}

// IsBelow says whether path is one of paths or below it.
func IsBelow(path string, paths []string) bool {
	for _, p := range paths {
		if HasPrefix(path, p) {
			return true
		}
	}
	return false
}

// ExplicitPath is the path at which the body of a request names what is called, so that the path says nothing about it.
const ExplicitPath = "/v1/rpc"

// IsPublic says whether path is one of paths or below it, for middlewares that let such requests pass whoever sends them.
// ExplicitPath is public only if it is one of them itself, or / is: /v1 means services whose names begin with v1.
func IsPublic(path string, paths []string) bool {
	if HasPrefix(path, ExplicitPath) {
		return slices.Contains(paths, ExplicitPath) || slices.Contains(paths, "/")
	}
	return IsBelow(path, paths)
}

// CheckPaths says which paths of a setting can never be the path of a request: Prepare would have made them another.
func CheckPaths(option string, paths []string) error {
	var errs []error
	for _, p := range paths {
		u := &url.URL{Path: p}
		if !strings.HasPrefix(p, "/") {
			errs = append(errs, fmt.Errorf("%s: %q must begin with a slash", option, p))
		} else if err := normalisePath(u); err != nil || u.Path != p {
			errs = append(errs, fmt.Errorf("%s: no request has the path %q, once it is decoded and cleaned", option, p))
		}
	}
	return errors.Join(errs...)
}

// CheckHost returns the pattern of a setting as MatchHost takes it: an address of IPv6 may be written with brackets, as in
// a Host header, and loses them. An error is about a pattern that no request matches, because Prepare would have made its host
// another.
func CheckHost(pattern string) (string, error) {
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(pattern, "["), "]")); err == nil {
		normal := addr.WithZone("").String()
		if pattern != normal && (!addr.Is6() || pattern != "["+normal+"]") {
			return "", fmt.Errorf("%q is never written like that: write %s", pattern, normal)
		}
		return normal, nil
	}
	name := strings.TrimPrefix(pattern, "*.")
	if _, normal, err := normalHost(name); pattern != "*" && (err != nil || normal != name) {
		return "", fmt.Errorf("%q is no host: write a name in lower case, without a port, an address, or *.example.com", pattern)
	}
	return pattern, nil
}
