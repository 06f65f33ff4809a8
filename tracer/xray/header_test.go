package xray

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
)

const (
	root   = "Root=1-5759e988-bd862e3fe1be46a994272793"
	parent = "Parent=53995c3f42cd8ad8"
)

var (
	rootID   = trace.TraceID{0x57, 0x59, 0xe9, 0x88, 0xbd, 0x86, 0x2e, 0x3f, 0xe1, 0xbe, 0x46, 0xa9, 0x94, 0x27, 0x27, 0x93}
	parentID = trace.SpanID{0x53, 0x99, 0x5c, 0x3f, 0x42, 0xcd, 0x8a, 0xd8}
)

func TestParseHeader(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want header
		bad  bool
	}{
		"all":                       {text: root + ";" + parent + ";Sampled=1", want: header{rootID, parentID, yes, ""}},
		"not sampled":               {text: root + ";" + parent + ";Sampled=0", want: header{rootID, parentID, no, ""}},
		"asked":                     {text: root + ";" + parent + ";Sampled=?", want: header{rootID, parentID, asked, ""}},
		"any order":                 {text: "Sampled=1;" + parent + ";" + root, want: header{rootID, parentID, yes, ""}},
		"spaces":                    {text: " " + root + "; " + parent + " ;\tSampled=1 ", want: header{rootID, parentID, yes, ""}},
		"a load balancer's":         {text: root, want: header{root: rootID}},
		"a load balancer's, on top": {text: "Self=1-67891234-12456789abcdef012345678;" + root + ";CalledFrom=app", want: header{root: rootID, others: "CalledFrom=app"}},
		"no parent, but sampled":    {text: root + ";Sampled=1", want: header{root: rootID, sampled: yes}},
		"lineage":                   {text: root + ";" + parent + ";Sampled=1;Lineage=a87bd80c:1|68fd508a:5", want: header{rootID, parentID, yes, "Lineage=a87bd80c:1|68fd508a:5"}},
		"unknown keys in order":     {text: "b=2;" + root + ";a=1;c=", want: header{root: rootID, others: "b=2;a=1;c="}},
		"equals in a value":         {text: root + ";a=b=c", want: header{root: rootID, others: "a=b=c"}},
		"upper case":                {text: "Root=1-5759E988-BD862E3FE1BE46A994272793", want: header{root: rootID}},
		"empty parts":               {text: ";;" + root + ";", want: header{root: rootID}},
		"no root":                   {text: "Sampled=1;a=b", want: header{sampled: yes, others: "a=b"}},
		"no root for the parent":    {text: parent + ";Sampled=0", want: header{sampled: no}},
		"an SDK's, not sampled":     {text: "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0", want: header{sampled: no}},
		"parent of zeros":           {text: root + ";Parent=0000000000000000;Sampled=1", want: header{root: rootID, sampled: yes}},
		"parent malformed":          {text: root + ";Parent=53995c3f42cd8ad;Sampled=1", want: header{root: rootID, sampled: yes}},
		"parent not hex":            {text: root + ";Parent=53995c3f42cd8adx;Sampled=1", want: header{root: rootID, sampled: yes}},
		"sampled malformed":         {text: root + ";Sampled=true", want: header{root: rootID}},
		"the last counts":           {text: root + ";Sampled=0;Sampled=1", want: header{root: rootID, sampled: yes}},
		"what is no header is lost": {text: root + ";a=\r\nSet-Cookie: x;b=1", want: header{root: rootID, others: "b=1"}},
		"keys have their case":      {text: root + ";sampled=1", want: header{root: rootID, others: "sampled=1"}},
		"empty":                     {text: "", bad: true},
		"nothing":                   {text: ";", bad: true},
		"only self":                 {text: "Self=1-67891234-12456789abcdef012345678", bad: true},
		"root of another version":   {text: "Root=2-5759e988-bd862e3fe1be46a994272793;Sampled=1", bad: true},
		"root too short":            {text: "Root=1-5759e988-bd862e3fe1be46a99427279;Sampled=1", bad: true},
		"root too long":             {text: "Root=1-5759e988-bd862e3fe1be46a9942727933;Sampled=1", bad: true},
		"root not hex":              {text: "Root=1-5759e988-bd862e3fe1be46a99427279x;Sampled=1", bad: true},
		"root cut otherwise":        {text: "Root=1-5759e988b-d862e3fe1be46a994272793;Sampled=1", bad: true},
		"root empty":                {text: "Root=;Sampled=1", bad: true},
		"of two headers":            {text: root + "," + root, bad: true},
		"longer than any":           {text: root + ";a=" + strings.Repeat("b", maxHeader), bad: true},
		"a W3C one":                 {text: "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			h, ok := parseHeader(c.text)
			require.Equal(t, !c.bad, ok)
			require.Equal(t, c.want, h)
			if ok {
				again, ok := parseHeader(h.String())
				require.True(t, ok)
				require.Equal(t, h, again)
			}
		})
	}
}

func FuzzHeader(f *testing.F) {
	for _, text := range []string{
		"", root, root + ";" + parent + ";Sampled=1", "Sampled=?; " + root, "Self=1;" + root + ";Lineage=a:1|b:2",
		"Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0", root + ";=;a=;\x00=\x7f",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, ok := parseHeader(text)
		if !ok {
			require.Equal(t, header{}, h)
			return
		}
		require.False(t, h.parent.IsValid() && !h.root.IsValid())
		out := h.String()
		require.NotEmpty(t, out)
		require.True(t, printable(out), "%q", out)
		again, ok := parseHeader(out)
		require.True(t, ok, out)
		require.Equal(t, h, again)
	})
}

// through is what leaves a process that a request with the header enters and that starts a span for it.
func through(t *testing.T, tr *Tracer, headers map[string]string) (span trace.Span, sent map[string]string, answer string) {
	ctx := tr.Extract(t.Context(), func(key string) string { return headers[key] })
	ctx, span = tr.Provider().Tracer("test").Start(ctx, "serve", trace.WithSpanKind(trace.SpanKindServer))
	t.Cleanup(func() { span.End() })
	sent = make(map[string]string)
	tr.Inject(ctx, func(key, value string) { sent[key] = value })
	tr.Respond(ctx, func(_, value string) { answer = value })
	return span, sent, answer
}

func TestWhatEntersLeaves(t *testing.T) {
	const w3c = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-0"
	always := openTracer(t, Config{Sampling: "local", Rate: 1})
	never := openTracer(t, Config{Sampling: "local", Rate: 0})
	for name, c := range map[string]struct {
		tracer  *Tracer
		headers map[string]string
		traceID trace.TraceID // zero: a new one
		parent  trace.SpanID
		sampled bool
		after   string // Parent=…
		answer  string
	}{
		"sampled":                       {never, map[string]string{headerName: root + ";" + parent + ";Sampled=1"}, rootID, parentID, true, ";Sampled=1", ""},
		"not sampled":                   {always, map[string]string{headerName: root + ";" + parent + ";Sampled=0"}, rootID, parentID, false, ";Sampled=0", ""},
		"sampled, no parent":            {never, map[string]string{headerName: root + ";Sampled=1"}, rootID, trace.SpanID{}, true, ";Sampled=1", ""},
		"sampled, no root":              {never, map[string]string{headerName: "Sampled=1"}, trace.TraceID{}, trace.SpanID{}, true, ";Sampled=1", ""},
		"not sampled by an SDK":         {always, map[string]string{headerName: "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0"}, trace.TraceID{}, trace.SpanID{}, false, ";Sampled=0", ""},
		"not decided: yes":              {always, map[string]string{headerName: root + ";" + parent}, rootID, parentID, true, ";Sampled=1", ""},
		"not decided: no":               {never, map[string]string{headerName: root + ";" + parent}, rootID, parentID, false, ";Sampled=0", ""},
		"a load balancer's":             {always, map[string]string{headerName: root}, rootID, trace.SpanID{}, true, ";Sampled=1", ""},
		"asked: yes":                    {always, map[string]string{headerName: root + ";" + parent + ";Sampled=?"}, rootID, parentID, true, ";Sampled=1", root + ";" + parent + ";Sampled=1"},
		"asked: no":                     {never, map[string]string{headerName: root + ";Sampled=?"}, rootID, trace.SpanID{}, false, ";Sampled=0", root + ";Sampled=0"},
		"lineage and others":            {always, map[string]string{headerName: "Self=1-2-3;" + root + ";Lineage=a:1|b:2;x=y"}, rootID, trace.SpanID{}, true, ";Sampled=1;Lineage=a:1|b:2;x=y", ""},
		"nothing":                       {always, nil, trace.TraceID{}, trace.SpanID{}, true, ";Sampled=1", ""},
		"malformed":                     {never, map[string]string{headerName: "Root=1-2-3;" + parent + ";Sampled=1"}, trace.TraceID{}, trace.SpanID{}, false, ";Sampled=0", ""},
		"W3C, sampled":                  {never, map[string]string{"traceparent": w3c + "1"}, rootID, parentID, true, ";Sampled=1", ""},
		"W3C, not sampled":              {always, map[string]string{"traceparent": w3c + "0"}, rootID, parentID, false, ";Sampled=0", ""},
		"W3C beside a malformed one":    {never, map[string]string{headerName: "Root=x", "traceparent": w3c + "1"}, rootID, parentID, true, ";Sampled=1", ""},
		"X-Ray's goes before W3C's":     {never, map[string]string{headerName: "Root=1-5759e988-000000000000000000000001;Sampled=1", "traceparent": w3c + "0"}, trace.TraceID{0x57, 0x59, 0xe9, 0x88, 15: 1}, trace.SpanID{}, true, ";Sampled=1", ""},
		"W3C beside one without a root": {always, map[string]string{headerName: "Sampled=0", "traceparent": w3c + "1"}, trace.TraceID{}, trace.SpanID{}, false, ";Sampled=0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := time.Now().Unix()
			span, sent, answer := through(t, c.tracer, c.headers)
			id := span.SpanContext().TraceID()
			if c.traceID.IsValid() {
				require.Equal(t, c.traceID, id)
			} else {
				require.InDelta(t, before, int64(id[0])<<24|int64(id[1])<<16|int64(id[2])<<8|int64(id[3]), 2, "new ids begin with the time")
			}
			require.Equal(t, c.sampled, span.SpanContext().IsSampled())
			if s, ok := span.(interface{ Parent() trace.SpanContext }); ok {
				require.Equal(t, c.parent, s.Parent().SpanID())
			}
			require.Equal(t, map[string]string{headerName: "Root=" + formatRoot(id) + ";Parent=" + span.SpanContext().SpanID().String() + c.after}, sent)
			require.Equal(t, c.answer, answer)
		})
	}
}

func TestWhatIsNotDecidedHerePassesOnAsItCame(t *testing.T) {
	tr := openTracer(t, Config{Sampling: "local"})
	for _, text := range []string{root, root + ";" + parent + ";Sampled=?;Lineage=a:1", root + ";Sampled=0", root + ";" + parent + ";Sampled=1"} {
		ctx := tr.Extract(t.Context(), func(key string) string { return map[string]string{headerName: text}[key] })
		tr.Inject(ctx, func(_, value string) { require.Equal(t, text, value) })
		tr.Respond(ctx, func(_, value string) { t.Errorf("an answer without a decision: %s", value) })
	}
	tr.Inject(t.Context(), func(_, value string) { t.Errorf("there is no trace: %s", value) })
}

func TestChildrenFollowTheTraceThatTheyAreIn(t *testing.T) {
	tr := openTracer(t, Config{Sampling: "local"})
	get := func(key string) string { return map[string]string{headerName: root + ";Sampled=1;Lineage=a:1"}[key] }
	ctx, span := tr.Provider().Tracer("test").Start(tr.Extract(t.Context(), get), "serve")
	defer span.End()
	inner, child := tr.Provider().Tracer("test").Start(ctx, "work")
	defer child.End()
	require.True(t, child.SpanContext().IsSampled())
	tr.Inject(inner, func(_, value string) { require.Contains(t, value, "Lineage=a:1") })

	other, root := tr.Provider().Tracer("test").Start(ctx, "another", trace.WithNewRoot())
	defer root.End()
	require.False(t, root.SpanContext().IsSampled(), "a new trace is not decided by the old one")
	tr.Inject(other, func(_, value string) { require.NotContains(t, value, "Lineage") })
}

func TestIDs(t *testing.T) {
	seen := make(map[trace.TraceID]bool)
	for range 1000 {
		id, span := ids{}.NewIDs(context.Background())
		require.True(t, id.IsValid() && span.IsValid())
		require.False(t, seen[id])
		seen[id] = true
	}
}
