package xray

import (
	"encoding/hex"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// headerName is the name of the header that X-Ray's own SDKs and AWS's load balancers use.
const headerName = "X-Amzn-Trace-Id"

// maxHeader is how long a header may be: a load balancer, too, replaces one that is longer.
const maxHeader = 7 << 10

// decision is what a header says of sampling.
type decision byte

const (
	undecided decision = iota // it says nothing
	asked                     // Sampled=?: who reads it decides, and answers
	no                        // Sampled=0
	yes                       // Sampled=1
)

// header is an X-Amzn-Trace-Id: Root=1-8hex-24hex;Parent=16hex;Sampled=1, in any order and with any part missing.
type header struct {
	root    trace.TraceID
	parent  trace.SpanID
	sampled decision
	others  string // Lineage, and what else is of no concern to us, as k=v;k=v, in the order in which it came
}

// parseHeader reads a header; ok is false if it is malformed or says nothing. A part that is malformed is as if it
// were not there, but for Root: without it the rest would join another trace.
//
// A Root of zeros is what X-Ray's SDKs send for what they do not sample. It is no trace, but the decision counts. Self
// is what a load balancer says of its own hop, and ends here, as it does in the SDKs.
func parseHeader(text string) (h header, ok bool) {
	if len(text) > maxHeader {
		return header{}, false
	}
	var others []string
	for pair := range strings.SplitSeq(text, ";") {
		pair = strings.Trim(pair, " \t")
		key, value, found := strings.Cut(pair, "=")
		if !found {
			continue
		}
		switch key {
		case "Root":
			if h.root, ok = parseRoot(value); !ok {
				return header{}, false
			}
		case "Parent":
			h.parent = parseParent(value)
		case "Sampled":
			h.sampled = parseSampled(value)
		case "Self":
		default:
			if key != "" && printable(pair) {
				others = append(others, pair)
			}
		}
	}
	h.others = strings.Join(others, ";")
	if !h.root.IsValid() {
		h.parent = trace.SpanID{} // of no trace
	}
	return h, h != header{}
}

// parseRoot reads 1-8hex-24hex. Zeros are well-formed.
func parseRoot(text string) (root trace.TraceID, ok bool) {
	if len(text) != 35 || text[:2] != "1-" || text[10] != '-' {
		return root, false
	}
	_, err := hex.Decode(root[:], []byte(text[2:10]+text[11:]))
	return root, err == nil
}

func parseParent(text string) (parent trace.SpanID) {
	if len(text) != 16 {
		return parent
	}
	if _, err := hex.Decode(parent[:], []byte(text)); err != nil {
		return trace.SpanID{}
	}
	return parent
}

func parseSampled(text string) decision {
	switch text {
	case "0":
		return no
	case "1":
		return yes
	case "?":
		return asked
	}
	return undecided
}

// printable tells whether the text may go into a header again.
func printable(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// String is the header as it is sent; "" if there is nothing to say.
func (h header) String() string {
	var b strings.Builder
	part := func(texts ...string) {
		if b.Len() > 0 {
			b.WriteByte(';')
		}
		for _, t := range texts {
			b.WriteString(t)
		}
	}
	b.Grow(80 + len(h.others))
	if h.root.IsValid() {
		part("Root=", formatRoot(h.root))
	}
	if h.parent.IsValid() {
		part("Parent=", h.parent.String())
	}
	switch h.sampled {
	case no:
		part("Sampled=0")
	case yes:
		part("Sampled=1")
	case asked:
		part("Sampled=?")
	}
	if h.others != "" {
		part(h.others)
	}
	return b.String()
}

// formatRoot writes a trace ID as X-Ray does, whether it begins with a time or not.
func formatRoot(id trace.TraceID) string {
	var b [35]byte
	b[0], b[1], b[10] = '1', '-', '-'
	hex.Encode(b[2:10], id[:4])
	hex.Encode(b[11:], id[4:])
	return string(b[:])
}
