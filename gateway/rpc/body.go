package rpc

import (
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/gateway"
)

// bodyType is how a message is encoded.
type bodyType int

const (
	typeJSON bodyType = iota
	typeProto
	typeBytes
	numTypes
)

var typeNames = [numTypes]string{codec.JSON, codec.Proto, codec.Bytes}

// typeHeaders are the same, to be set without an allocation.
var typeHeaders = [numTypes][]string{{codec.JSON}, {codec.Proto}, {codec.Bytes}}

var noSniff = []string{"nosniff"}

// lines is what a stream in a body, or an answer, is called.
const lines = "application/x-ndjson"

// form is the type of what curl -d sends, and of what any page can send without asking.
const form = "application/x-www-form-urlencoded"

// requestType is how the body of r is encoded.
func requestType(r *http.Request, info *gateway.Info, t *target) (bodyType, error) {
	header := r.Header["Content-Type"]
	if len(header) == 1 && header[0] == codec.JSON {
		return typeJSON, checkEncoding(r)
	}
	if len(header) > 1 {
		return 0, gateway.NewProblem(http.StatusBadRequest, "the request has several Content-Types")
	}
	name, params := "", map[string]string(nil)
	if len(header) == 1 {
		var err error
		if name, params, err = mime.ParseMediaType(header[0]); err != nil {
			return 0, unsupported(t, "a Content-Type that is none")
		}
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return 0, unsupported(t, "charset "+strconv.Quote(shown(charset)))
	}
	if err := checkEncoding(r); err != nil {
		return 0, err
	}
	switch name {
	case codec.JSON:
		return typeJSON, nil
	case codec.Proto, "application/x-protobuf":
		return typeProto, nil
	case codec.Bytes:
		return typeBytes, nil
	case lines, "application/ndjson", "application/jsonl":
		if t != nil && (t.stream == clientStream || t.stream == bothStreams) {
			return typeJSON, nil
		}
	case "", form:
		if r.Method == http.MethodPost && !info.CrossOrigin && gateway.FromOtherOrigin(r) {
			return 0, gateway.NewProblem(http.StatusForbidden, "a page of another origin has to send Content-Type %s: its browser then asks whether it may", codec.JSON)
		}
		return typeJSON, nil
	}
	return 0, unsupported(t, "Content-Type "+strconv.Quote(shown(name)))
}

func checkEncoding(r *http.Request) error {
	if e := r.Header["Content-Encoding"]; len(e) > 0 && !strings.EqualFold(e[0], "identity") {
		return gateway.NewProblem(http.StatusUnsupportedMediaType, "a body with a Content-Encoding cannot be read: send it as it is")
	}
	return nil
}

func unsupported(t *target, what string) error {
	can := codec.JSON + ", " + codec.Proto + " or " + codec.Bytes
	switch {
	case t == nil:
		can = codec.JSON
	case t.stream == clientStream || t.stream == bothStreams:
		can = lines + " or " + codec.JSON
	case t.stream == serverStream:
		can = codec.JSON
	}
	return gateway.NewProblem(http.StatusUnsupportedMediaType, "%s is not taken: send %s", what, can)
}

// isForm says whether the body claims to be a form, which it must not be.
func isForm(r *http.Request) bool {
	header := r.Header["Content-Type"]
	return len(header) == 1 && header[0] != codec.JSON && strings.HasPrefix(strings.ToLower(header[0]), form)
}

// checkForm refuses forms that are forms.
func checkForm(r *http.Request, body []byte) error {
	if !isForm(r) {
		return nil
	}
	text := strings.TrimLeft(string(body[:min(len(body), 64)]), " \t\r\n")
	if text != "" && text[0] != '{' && text[0] != '[' && text[0] != '"' {
		return gateway.NewProblem(http.StatusUnsupportedMediaType, "forms are not taken: send JSON, as in curl -d '{\"name\":\"Ada\"}'")
	}
	return nil
}

// accepts says whether a client that sends header takes a type.
func accepts(header http.Header, name string) bool {
	list := header["Accept"]
	if len(list) == 0 || len(list) == 1 && (list[0] == "*/*" || list[0] == name) {
		return true
	}
	group, _, _ := strings.Cut(name, "/")
	takes, best := false, -1
	for _, line := range list {
		for one := range strings.SplitSeq(line, ",") {
			one, params, _ := strings.Cut(one, ";")
			one = strings.ToLower(strings.TrimSpace(one))
			specific := slices.Index([]string{"*/*", group + "/*", name}, one)
			if specific > best {
				takes, best = !isZero(params), specific
			}
		}
	}
	return takes
}

// isZero says whether the parameters of a range in Accept have a q of 0.
func isZero(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		if q, ok := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(p, " ", "")), "q="); ok {
			v, err := strconv.ParseFloat(q, 64)
			return err != nil || v == 0
		}
	}
	return false
}

// asksFor says whether Accept names a type, not only a range that it is in.
func asksFor(header http.Header, name string) bool {
	for _, line := range header["Accept"] {
		for one := range strings.SplitSeq(line, ",") {
			one, params, _ := strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(one), name) && !isZero(params) {
				return true
			}
		}
	}
	return false
}

func checkAccept(r *http.Request, name string) error {
	if accepts(r.Header, name) {
		return nil
	}
	return gateway.NewProblem(http.StatusNotAcceptable, "the answer would be %s, as the request is, which Accept does not take", name)
}

// firstRoom bounds the memory for a body of which nothing has come yet.
const firstRoom = 16 << 10

// readBody appends the body of r to buf, within the limit of its size; that of time is the server's.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, buf []byte) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return buf, nil
	}
	if r.ContentLength > h.opts.MaxBody {
		return buf, h.tooLarge()
	}
	buf, err := h.readAll(r, slices.Grow(buf, int(min(max(r.ContentLength, 512), firstRoom))))
	if err != nil {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		return buf, h.whyUnread(r, err)
	}
	return buf, nil
}

func (h *Handler) readAll(r *http.Request, buf []byte) ([]byte, error) {
	for {
		n, err := r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > h.opts.MaxBody:
			return buf, h.tooLarge()
		case err == io.EOF || err == nil && int64(len(buf)) == r.ContentLength:
			return buf, nil
		case err != nil:
			return buf, err
		case len(buf) == cap(buf):
			buf = slices.Grow(buf, len(buf))
		}
	}
}

func (h *Handler) tooLarge() error {
	return gateway.NewProblem(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes, which is the limit", h.opts.MaxBody)
}

// whyUnread is why a body could not be read.
func (h *Handler) whyUnread(r *http.Request, err error) error {
	var problem *gateway.Problem
	var tooLarge *http.MaxBytesError
	var network net.Error
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.As(err, &tooLarge):
		return h.tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return gateway.NewProblem(http.StatusRequestTimeout, "the body did not come in time")
	case r.Context().Err() != nil, errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &network), errors.Is(err, http.ErrBodyReadAfterClose):
		return gateway.NewProblem(gateway.ClientClosed, "the client went while it sent the body")
	}
	return gateway.NewProblem(http.StatusBadRequest, "the body cannot be read: %v", err)
}
