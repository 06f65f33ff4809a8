package xray

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/internal/otelsdk"
	"github.com/plugmicro/micro/plugin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openTracer opens a tracer that sends at once; without a daemon it sends to nobody.
func openTracer(t *testing.T, c Config) *Tracer {
	if c.Name == "" {
		c.Name = "shop"
	}
	if c.Batching == (otelsdk.Batching{}) {
		c.Batching = otelsdk.Batching{BatchDelay: 5 * time.Millisecond}
	}
	tr, err := Open(&plugin.Env{}, c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tr.Close()) })
	return tr
}

// daemon is an X-Ray daemon that checks all that it gets, by what AWS documents.
type daemon struct {
	t         testing.TB
	address   string
	documents chan map[string]any
	api       *api
}

func newDaemon(t testing.TB) *daemon {
	d := &daemon{t: t, documents: make(chan map[string]any, 1<<14), api: &api{t: t}}
	server := httptest.NewServer(d.api)
	t.Cleanup(server.Close)
	d.address = server.Listener.Addr().String()
	conn, err := net.ListenPacket("udp", d.address)
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		d.receive(conn)
	}()
	return d
}

func (d *daemon) receive(conn net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		document, err := checkDatagram(buf[:n])
		if err != nil {
			d.t.Errorf("datagram: %v\n%s", err, buf[:n])
			continue
		}
		select {
		case d.documents <- document:
		default:
			d.t.Error("nobody reads the documents")
		}
	}
}

// next is the next document.
func (d *daemon) next() map[string]any {
	d.t.Helper()
	select {
	case document := <-d.documents:
		return document
	case <-time.After(20 * time.Second):
		require.FailNow(d.t, "no document came")
		return nil
	}
}

// api answers about sampling. It is X-Ray's API as the daemon passes it on.
type api struct {
	t testing.TB

	mu       sync.Mutex
	pages    [][]samplingRule
	fetches  int
	reports  []statistics
	targets  func([]statistics) targetsAnswer
	broken   bool
	modified float64
}

func (a *api) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost {
		a.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	if a.broken {
		http.Error(w, "ExpiredTokenException", http.StatusForbidden)
		return
	}
	var answer any
	switch r.URL.Path {
	case "/GetSamplingRules":
		answer = a.rules(body)
	case "/SamplingTargets":
		answer = a.answerTargets(body)
	default:
		a.t.Errorf("POST %s", r.URL)
	}
	text, err := json.Marshal(answer)
	if err != nil {
		a.t.Error(err)
	}
	_, _ = w.Write(text)
}

func (a *api) rules(body []byte) any {
	var ask struct{ NextToken *string }
	if err := strict(body, &ask); err != nil {
		a.t.Error(err)
	}
	a.fetches++
	page := 0
	if ask.NextToken != nil {
		if _, err := fmt.Sscanf(*ask.NextToken, "page %d", &page); err != nil {
			a.t.Error(err)
		}
	}
	records := []map[string]any{}
	if page < len(a.pages) {
		for _, r := range a.pages[page] {
			records = append(records, map[string]any{"CreatedAt": 0.0, "ModifiedAt": 1.5e9, "SamplingRule": r})
		}
	}
	answer := map[string]any{"NextToken": nil, "SamplingRuleRecords": records}
	if page+1 < len(a.pages) {
		answer["NextToken"] = fmt.Sprintf("page %d", page+1)
	}
	return answer
}

func (a *api) answerTargets(body []byte) any {
	var ask struct{ SamplingStatisticsDocuments []statistics }
	if err := strict(body, &ask); err != nil {
		a.t.Error(err)
	}
	for _, s := range ask.SamplingStatisticsDocuments {
		if len(s.ClientID) != 24 || s.RuleName == "" || s.Timestamp == 0 || s.RequestCount < s.SampledCount+s.BorrowCount {
			a.t.Errorf("statistics %+v", s)
		}
	}
	a.reports = append(a.reports, ask.SamplingStatisticsDocuments...)
	var answer targetsAnswer
	if a.targets != nil {
		answer = a.targets(ask.SamplingStatisticsDocuments)
	}
	if answer.LastRuleModification == 0 {
		answer.LastRuleModification = a.modified
	}
	return answer
}

func strict(text []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// checkDatagram is strict: what is not documented is an error.
func checkDatagram(data []byte) (document map[string]any, err error) {
	text, ok := strings.CutPrefix(string(data), `{"format":"json","version":1}`+"\n")
	if !ok || strings.TrimSpace(text) != text {
		return nil, fmt.Errorf("a header line and one document are wanted")
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&document); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, fmt.Errorf("more than one document")
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	checkSegment(document, false)
	return document, nil
}

var (
	hex16    = regexp.MustCompile(`^[0-9a-f]{16}$`)
	traceID  = regexp.MustCompile(`^1-[0-9a-f]{8}-[0-9a-f]{24}$`)
	aName    = regexp.MustCompile(`^[\p{L}\p{N}\p{Z}_.:/%&#=+\\\-@]{1,200}$`)
	epoch    = regexp.MustCompile(`^[0-9]{9,10}\.[0-9]{6}$`)
	aKey     = regexp.MustCompile(`^[A-Za-z0-9_]{1,500}$`)
	anOrigin = regexp.MustCompile(`^AWS::[A-Za-z0-9]+::[A-Za-z0-9]+$`)
)

// field checks one value, or panics.
type field func(any)

func text(most int) field {
	return func(v any) {
		if s := v.(string); s == "" || utf8.RuneCountInString(s) > most {
			panic(fmt.Sprintf("text %q", s))
		}
	}
}

func like(pattern *regexp.Regexp) field {
	return func(v any) {
		if !pattern.MatchString(v.(string)) {
			panic(fmt.Sprintf("%q is not like %s", v, pattern))
		}
	}
}

func one(values ...string) field {
	return func(v any) {
		for _, s := range values {
			if s == v {
				return
			}
		}
		panic(fmt.Sprintf("%v is none of %q", v, values))
	}
}

func isTrue(v any) {
	if v != true {
		panic("it is said when it is true")
	}
}

func whole(v any) {
	if n, err := v.(json.Number).Int64(); err != nil || n < 0 {
		panic(fmt.Sprintf("%v is no number of something", v))
	}
}

// object has only the given fields.
func object(fields map[string]field) field {
	return func(v any) {
		m := v.(map[string]any)
		if len(m) == 0 {
			panic("an object that is empty")
		}
		for key, value := range m {
			check, ok := fields[key]
			if !ok {
				panic("there is no field " + key)
			}
			func() {
				defer func() {
					if p := recover(); p != nil {
						panic(fmt.Sprintf("%s: %v", key, p))
					}
				}()
				check(value)
			}()
		}
	}
}

func list(each field) field {
	return func(v any) {
		for _, e := range v.([]any) {
			each(e)
		}
	}
}

func annotations(v any) {
	m := v.(map[string]any)
	if len(m) == 0 || len(m) > 50 {
		panic("how many annotations")
	}
	for key, value := range m {
		like(aKey)(key)
		switch value := value.(type) {
		case string:
			if utf8.RuneCountInString(value) > 1000 {
				panic("an annotation that is too long")
			}
		case bool, json.Number:
		default:
			panic(fmt.Sprintf("annotation %v is no scalar", value))
		}
	}
}

func metadata(v any) {
	for namespace, values := range v.(map[string]any) {
		if strings.HasPrefix(namespace, "AWS.") {
			panic("namespace " + namespace)
		}
		if len(values.(map[string]any)) == 0 {
			panic("an empty namespace")
		}
	}
}

func checkSegment(d map[string]any, embedded bool) {
	sub := embedded || d["type"] != nil
	request := map[string]field{"method": text(250), "url": text(1000)}
	fields := map[string]field{
		"name": like(aName), "id": like(hex16), "trace_id": like(traceID), "parent_id": like(hex16), "start_time": isTime, "end_time": isTime,
		"error": isTrue, "throttle": isTrue, "fault": isTrue,
		"cause": object(map[string]field{"exceptions": list(object(map[string]field{
			"id": like(hex16), "type": text(1000), "message": text(1000), "truncated": whole,
			"stack": list(object(map[string]field{"path": text(1000), "label": text(1000), "line": whole})),
		}))}),
		"http": object(map[string]field{"request": object(request),
			"response": object(map[string]field{"status": whole, "content_length": whole})}),
		"annotations": annotations, "metadata": metadata,
		"subsegments": list(func(v any) { checkSegment(v.(map[string]any), true) }),
	}
	required := []string{"name", "id", "start_time"}
	aws := map[string]field{"account_id": text(1000)}
	fields["aws"] = object(aws)
	if sub {
		fields["namespace"] = one("aws", "remote")
		fields["sql"] = object(map[string]field{"url": text(1000), "database_type": text(1000), "user": text(1000), "sanitized_query": text(1000)})
		for _, key := range []string{"operation", "region", "request_id", "queue_url", "table_name"} {
			aws[key] = text(1000)
		}
	} else {
		fields["in_progress"] = isTrue
		fields["origin"], fields["user"] = like(anOrigin), text(250)
		fields["service"] = object(map[string]field{"version": text(255), "runtime": text(255), "runtime_version": text(255)})
		request["client_ip"], request["user_agent"], request["x_forwarded_for"] = text(250), text(1000), isTrue
		aws["ecs"] = object(map[string]field{"container": text(1000)})
		aws["ec2"] = object(map[string]field{"instance_id": text(1000), "availability_zone": text(1000)})
		aws["xray"] = object(map[string]field{"sdk": text(100), "sdk_version": text(100), "sampling_rule_name": text(100)})
	}
	switch {
	case embedded:
		delete(fields, "trace_id")
		delete(fields, "parent_id")
	case sub:
		fields["type"] = one("subsegment")
		required = append(required, "type", "trace_id", "parent_id")
	default:
		required = append(required, "trace_id")
	}
	object(fields)(d)
	for _, key := range required {
		if d[key] == nil {
			panic(key + " is missing")
		}
	}
	switch end, ended := d["end_time"].(json.Number); {
	case ended == (d["in_progress"] != nil):
		panic("either it has ended or it is in progress")
	case ended && end < d["start_time"].(json.Number):
		panic("it ends before it starts")
	}
}

func isTime(v any) { like(epoch)(v.(json.Number).String()) }
