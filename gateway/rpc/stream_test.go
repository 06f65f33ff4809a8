package rpc_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/directory"
	"github.com/plugmicro/micro/gateway/rpc"
	"github.com/plugmicro/micro/registry"
)

func followed(t *testing.T, reg registry.Registry) *directory.Directory {
	d := directory.Follow(reg, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

const acceptEvents = "Accept: text/event-stream"

func TestLines(t *testing.T) {
	w := newWorld(t)
	for _, a := range []answer{
		w.do("POST", "/greeter/count", `{"zip":3}`, jsonType),
		w.do("GET", "/greeter/count?zip=3", ""),
		w.do("GET", "/greeter/count?zip=3", "", "Accept: application/x-ndjson"),
	} {
		require.Equal(t, answer{200, a.header, "{\"zip\":1}\n{\"zip\":2}\n{\"zip\":3}\n"}, a)
		require.Equal(t, "application/x-ndjson", a.header.Get("Content-Type"))
		require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	}
	a := w.do("POST", "/greeter/count", ``)
	require.Equal(t, answer{200, a.header, ""}, a, "none")
	a = w.do("POST", "/greeter/count", `{"zip":1,"city":"bad luck"}`)
	require.Equal(t, "{\"zip\":1}\n"+`{"error":{"title":"Internal Server Error","status":500,"code":"DataLoss","detail":"bad luck","request_id":"id-7"}}`+"\n", a.body)
	p := w.problem(w.do("POST", "/greeter/count", `{"city":"bad luck"}`))
	require.Equal(t, 500, p.Status, "before the first message it is the status that says it")
	require.Equal(t, 400, w.problem(w.do("POST", "/greeter/count", `{"zip":"x"}`)).Status)
	require.Equal(t, 406, w.problem(w.do("POST", "/greeter/count", `{}`, "Accept: text/html")).Status)
	require.Equal(t, 415, w.problem(w.do("POST", "/greeter/count", `x`, "Content-Type: application/protobuf")).Status)
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	a := w.do("GET", "/greeter/count?zip=2", "", acceptEvents)
	require.Equal(t, answer{200, a.header, "data: {\"zip\":1}\n\ndata: {\"zip\":2}\n\nevent: end\ndata: {}\n\n"}, a)
	require.Equal(t, "text/event-stream", a.header.Get("Content-Type"))
	a = w.do("GET", "/greeter/count?zip=1&city=bad", "", acceptEvents)
	require.Equal(t, "data: {\"zip\":1}\n\nevent: error\n"+
		`data: {"title":"Internal Server Error","status":500,"code":"DataLoss","detail":"bad","request_id":"id-7"}`+"\n\n", a.body)
	require.Equal(t, 500, w.problem(w.do("GET", "/greeter/count?city=bad", "", acceptEvents)).Status)
}

// open sends a request whose answer does not end, and returns it when its head has come.
func (w *world) open(method, path string, body io.Reader, headers ...string) *http.Response {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.http.URL+path, body)
	require.NoError(w.t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	rsp, err := w.http.Client().Do(r)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { rsp.Body.Close() })
	return rsp
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSuffix(s, "\n")
}

// TestMessagesComeAtOnce, with signs of life after them, for longer than the server gives a request.
func TestMessagesComeAtOnce(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) { o.Heartbeat = 20 * time.Millisecond }),
		func(w *world, _ *rpc.Options) {
			w.config.ReadTimeout, w.config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
		})
	rsp := w.open("GET", "/greeter/count?zip=1&city=wait", nil, acceptEvents)
	in := bufio.NewReader(rsp.Body)
	require.Equal(t, `data: {"zip":1}`, line(t, in))
	for range 20 {
		require.Equal(t, "", line(t, in))
		require.Equal(t, ":", line(t, in))
	}
	rsp.Body.Close()
	require.Eventually(t, func() bool { return w.greeter.ended.Load() == 1 }, soon, time.Millisecond, "client gone")
	require.Eventually(t, func() bool { return w.running.Load() == 0 }, soon, time.Millisecond)
}

// TestHeadDoesNotWaitForMessages: who subscribes learns that it has, though nothing comes.
func TestHeadDoesNotWaitForMessages(t *testing.T) {
	w := newWorld(t)
	for _, accept := range []string{acceptEvents, "Accept: */*"} {
		rsp := w.open("GET", "/greeter/count?city=wait", nil, accept)
		require.Equal(t, 200, rsp.StatusCode)
		rsp.Body.Close()
	}
}

func TestClientGoneInAStream(t *testing.T) {
	w := newWorld(t)
	rsp := w.open("GET", "/greeter/flood", nil)
	_, err := rsp.Body.Read(make([]byte, 100))
	require.NoError(t, err)
	rsp.Body.Close()
	require.Eventually(t, func() bool { return w.greeter.ended.Load() == 1 }, soon, time.Millisecond)
}

// TestBackpressure: a client that reads nothing holds up the service, and is given up in the end.
func TestBackpressure(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) { o.WriteTimeout = time.Second }))
	w.open("GET", "/greeter/flood", nil)
	held := int64(0)
	require.Eventually(t, func() bool {
		before := held
		held = w.greeter.calls.Load()
		return held > 0 && held == before
	}, soon, 100*time.Millisecond)
	require.Less(t, held, int64(1000), "of 32 KiB each")
	require.Eventually(t, func() bool { return w.greeter.ended.Load() == 1 }, soon, time.Millisecond)
}

func TestStreamOfRequests(t *testing.T) {
	w := newWorld(t)
	for _, contentType := range []string{"Content-Type: application/x-ndjson", jsonType, "Content-Type: application/x-www-form-urlencoded"} {
		a := w.do("POST", "/greeter/sum", "{\"zip\":1}\n{\"zip\":2}\n\n {\"zip\":3}", contentType)
		require.Equal(t, answer{200, a.header, `{"zip":6}`}, a)
		require.Equal(t, "application/json", a.header.Get("Content-Type"))
	}
	require.Equal(t, `{}`, w.do("POST", "/greeter/sum", "").body)
	for body, want := range map[string]gateway.Problem{
		"{\"zip\":1}\n{zip":                {Status: 400, Detail: "value 2 in the body is no JSON"},
		"{\"zip\":1}\n{\"zip\":":           {Status: 400, Detail: "value 2 in the body is no JSON: unexpected EOF"},
		"{\"zip\":1}\n{\"zip\":\"x\"}":     {Status: 400, Detail: "decode the request of Greeter.Sum: json: "},
		"{\"zip\":1}\n{\"city\":\"Bonn\"}": {Status: 400, Detail: "no Bonn"},
	} {
		p := w.problem(w.do("POST", "/greeter/sum", body, jsonType))
		require.Equal(t, want.Status, p.Status, "%s: %s", body, p.Detail)
		require.Contains(t, p.Detail, want.Detail)
	}
	require.Equal(t, 400, w.do("POST", "/greeter/sum?zip=1", "").status)
	require.Equal(t, 415, w.do("POST", "/greeter/sum", "x", "Content-Type: application/protobuf").status)
	require.Equal(t, 406, w.do("POST", "/greeter/sum", "", "Accept: text/html").status)
	require.Eventually(t, func() bool { return w.running.Load() == 0 }, soon, time.Millisecond)
}

func TestLimitsOfAStreamOfRequests(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) { o.MaxBody = 100 }))
	many := strings.Repeat(`{"zip":1}`+"\n", 5000)
	require.Equal(t, `{"zip":5000}`, w.do("POST", "/greeter/sum", many).body, "the limit is that of one value")
	p := w.problem(w.do("POST", "/greeter/sum", `{"zip":1} {"city":"`+strings.Repeat("x", 1000)))
	require.Equal(t, 413, p.Status)

	w = newWorld(t, func(w *world, _ *rpc.Options) { w.config.ReadTimeout = 100 * time.Millisecond })
	c := w.dial()
	fmt.Fprintf(c, "POST /greeter/sum HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"zip\":1}")
	rsp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	defer rsp.Body.Close()
	text, _ := io.ReadAll(rsp.Body)
	require.Equal(t, 408, rsp.StatusCode, string(text))
	require.Eventually(t, func() bool { return w.running.Load() == 0 }, soon, time.Millisecond)
}

func TestClientGoneInAStreamOfRequests(t *testing.T) {
	w := newWorld(t)
	c := w.dial()
	fmt.Fprintf(c, "POST /greeter/sum HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"zip\":1} ")
	require.Eventually(t, func() bool { return w.greeter.calls.Load() == 1 }, soon, time.Millisecond)
	c.Close()
	require.Eventually(t, func() bool { return w.greeter.ended.Load() == 1 }, soon, time.Millisecond)
	require.Eventually(t, func() bool { return w.status.Load() == gateway.ClientClosed }, soon, time.Millisecond)
}

// TestAnswerBeforeTheEndOfTheRequests: an endpoint that has heard enough need not be sent the rest.
func TestAnswerBeforeTheEndOfTheRequests(t *testing.T) {
	w := newWorld(t)
	in, out := io.Pipe()
	defer out.Close()
	go io.WriteString(out, `{"city":"Bonn"}`+"\n")
	rsp := w.open("POST", "/greeter/sum", in, jsonType)
	require.Equal(t, 400, rsp.StatusCode)
}

func TestBothWaysInBodies(t *testing.T) {
	w := newWorld(t)
	a := w.do("POST", "/greeter/chat", `{"name":"Ada"} {"name":"Bob"}`, jsonType)
	require.Equal(t, "{\"message\":\"Hello, Ada\"}\n{\"message\":\"Hello, Bob\"}\n", a.body)
	a = w.do("POST", "/greeter/chat", `{"name":"Ada"} {"name":"fail"}`, jsonType, acceptEvents)
	require.Contains(t, a.body, "data: {\"message\":\"Hello, Ada\"}\n\nevent: error\ndata: {")

	in, out := io.Pipe()
	go io.WriteString(out, `{"name":"Ada"}`)
	rsp := w.open("POST", "/greeter/chat", in, jsonType)
	answers := bufio.NewReader(rsp.Body)
	require.Equal(t, `{"message":"Hello, Ada"}`, line(t, answers), "while the client sends")
	_, err := io.WriteString(out, `{"name":"Bob"}`)
	require.NoError(t, err)
	require.Equal(t, `{"message":"Hello, Bob"}`, line(t, answers))
	require.NoError(t, out.Close())
	_, err = answers.ReadByte()
	require.Equal(t, io.EOF, err)
	require.Eventually(t, func() bool { return w.running.Load() == 0 }, soon, time.Millisecond)
}

// TestServiceThatTakesNothing holds up its client, and is given up in the end.
func TestServiceThatTakesNothing(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) { o.WriteTimeout = 500 * time.Millisecond }))
	in, out := io.Pipe()
	var taken atomic.Int64
	writing := make(chan struct{})
	go func() {
		defer close(writing)
		for {
			n, err := io.WriteString(out, `{"name":"`+strings.Repeat("x", 32<<10)+`"}`+"\n")
			if err != nil {
				return
			}
			taken.Add(int64(n))
		}
	}()
	rsp := w.open("POST", "/greeter/deaf", in, jsonType)
	text, _ := io.ReadAll(rsp.Body)
	require.Contains(t, string(text), "the service did not take a value of the body within 500ms")
	in.Close()
	<-writing
	require.Less(t, taken.Load(), int64(32<<20))
	require.Eventually(t, func() bool { return w.greeter.ended.Load() == 1 }, soon, time.Millisecond)
}

func TestDeadlineOfAStream(t *testing.T) {
	w := newWorld(t)
	a := w.do("GET", "/greeter/count?zip=1&city=wait", "", "X-Request-Timeout: 50ms")
	require.Contains(t, a.body, "{\"zip\":1}\n{\"error\":{\"title\":\"Gateway Timeout\",\"status\":504,")
	require.Equal(t, 504, w.problem(w.do("GET", "/greeter/count?city=wait", "", "X-Request-Timeout: 50ms")).Status)
	require.Equal(t, 400, w.do("GET", "/greeter/count", "", "X-Request-Timeout: x").status)
	conn := w.socket("/greeter/count?city=wait", &websocket.DialOptions{HTTPHeader: http.Header{"X-Request-Timeout": {"50ms"}}})
	_, _, err := conn.Read(t.Context())
	require.Equal(t, websocket.StatusCode(4504), websocket.CloseStatus(err))
}

func TestServiceLostInAStream(t *testing.T) {
	w := newWorld(t)
	n := w.serve("fragile", "1.0.0", w.greeter)
	require.Eventually(t, func() bool { return w.dir.Service("fragile") != nil }, soon, time.Millisecond)
	rsp := w.open("GET", "/fragile/Greeter.Count?zip=1&city=wait", nil)
	in := bufio.NewReader(rsp.Body)
	require.Equal(t, `{"zip":1}`, line(t, in))
	conn := w.socket("/fragile/Greeter.Chat", nil)
	n.conns.cut()
	require.Contains(t, line(t, in), `{"error":{"title":"Bad Gateway","status":502,`)
	_, _, err := conn.Read(t.Context())
	require.Equal(t, websocket.StatusCode(4502), websocket.CloseStatus(err))
}

func TestShutdown(t *testing.T) {
	w := newWorld(t)
	lines := bufio.NewReader(w.open("GET", "/greeter/count?zip=1&city=wait", nil).Body)
	require.Equal(t, `{"zip":1}`, line(t, lines))
	events := bufio.NewReader(w.open("GET", "/greeter/count?zip=1&city=wait", nil, acceptEvents).Body)
	require.Equal(t, `data: {"zip":1}`, line(t, events))
	conn := w.socket("/greeter/chat", nil)
	closed := make(chan error, 1)
	go func() {
		_, _, err := conn.Read(context.Background())
		closed <- err
	}()
	require.NoError(t, w.handler.Shutdown(t.Context()))
	last := line(t, lines)
	require.Contains(t, last, `"status":502`, "it has run, and is not simply to be asked again")
	require.Contains(t, last, "the gateway stops, and service greeter was not done with its answer: what was asked may have been done")
	require.Equal(t, "", line(t, events))
	require.Equal(t, "event: error", line(t, events))
	require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(<-closed))
	require.Equal(t, 503, w.problem(w.do("GET", "/greeter/count", "")).Status)
	require.Equal(t, 200, w.do("GET", "/greeter/hello", "").status, "calls go on")
	require.NoError(t, w.handler.Shutdown(t.Context()), "again")
}

var handshake = []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}

func (w *world) socket(path string, o *websocket.DialOptions) *websocket.Conn {
	w.t.Helper()
	conn, rsp, err := websocket.Dial(w.t.Context(), w.http.URL+path, o)
	require.NoError(w.t, err)
	require.Equal(w.t, 101, rsp.StatusCode)
	w.t.Cleanup(func() { conn.CloseNow() })
	return conn
}

func say(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	require.NoError(t, conn.Write(t.Context(), websocket.MessageText, []byte(text)))
}

func hear(t *testing.T, conn *websocket.Conn) string {
	t.Helper()
	_, text, err := conn.Read(t.Context())
	require.NoError(t, err)
	return string(text)
}

func ends(t *testing.T, conn *websocket.Conn, code websocket.StatusCode, reason string) {
	t.Helper()
	_, _, err := conn.Read(t.Context())
	var c websocket.CloseError
	require.ErrorAs(t, err, &c)
	require.Equal(t, code, c.Code, c.Reason)
	require.Equal(t, reason, c.Reason)
}

func TestWebSocket(t *testing.T) {
	w := newWorld(t)
	t.Run("both ways", func(t *testing.T) {
		conn := w.socket("/greeter/chat", nil)
		say(t, conn, `{"name":"Ada"}`)
		require.Equal(t, `{"message":"Hello, Ada"}`, hear(t, conn))
		say(t, conn, `{"name":"Bob"}`)
		require.Equal(t, `{"message":"Hello, Bob"}`, hear(t, conn))
		say(t, conn, "")
		ends(t, conn, 1000, "")
	})
	t.Run("requests", func(t *testing.T) {
		conn := w.socket("/greeter/sum", nil)
		say(t, conn, `{"zip":1}`)
		say(t, conn, `{"zip":2}`)
		say(t, conn, "")
		require.Equal(t, `{"zip":3}`, hear(t, conn))
		ends(t, conn, 1000, "")
	})
	t.Run("answers to a message", func(t *testing.T) {
		conn := w.socket("/greeter/count", nil)
		say(t, conn, `{"zip":2}`)
		require.Equal(t, `{"zip":1}`, hear(t, conn))
		require.Equal(t, `{"zip":2}`, hear(t, conn))
		ends(t, conn, 1000, "")
	})
	t.Run("answers to the query", func(t *testing.T) {
		conn := w.socket("/greeter/count?zip=1", nil)
		require.Equal(t, `{"zip":1}`, hear(t, conn))
		ends(t, conn, 1000, "")
	})
	t.Run("protobuf", func(t *testing.T) {
		conn := w.socket("/greeter/upper-all", &websocket.DialOptions{Subprotocols: []string{"other", "micro.protobuf"}})
		require.Equal(t, "micro.protobuf", conn.Subprotocol())
		body, err := proto.Marshal(wrapperspb.String("ada"))
		require.NoError(t, err)
		require.NoError(t, conn.Write(t.Context(), websocket.MessageBinary, body))
		kind, got, err := conn.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, websocket.MessageBinary, kind)
		var v wrapperspb.StringValue
		require.NoError(t, proto.Unmarshal(got, &v))
		require.Equal(t, "ADA", v.Value)
		require.NoError(t, conn.Write(t.Context(), websocket.MessageBinary, nil), "an empty message of protobuf is one")
		_, got, err = conn.Read(t.Context())
		require.NoError(t, err)
		require.Empty(t, got)
		say(t, conn, "")
		ends(t, conn, 1000, "")
	})
	t.Run("errors", func(t *testing.T) {
		conn := w.socket("/greeter/chat", nil)
		say(t, conn, `{"name":"fail"}`)
		ends(t, conn, 4500, "DataLoss: as you say")
		conn = w.socket("/greeter/sum", nil)
		say(t, conn, `{"zip":"x"}`)
		_, _, err := conn.Read(t.Context())
		require.Equal(t, websocket.StatusCode(4400), websocket.CloseStatus(err))
		conn = w.socket("/greeter/count?zip=0&city="+strings.Repeat("ä", 100), nil)
		_, _, err = conn.Read(t.Context())
		require.Equal(t, websocket.StatusCode(4500), websocket.CloseStatus(err), "a long reason is cut")
	})
	t.Run("wrong messages", func(t *testing.T) {
		conn := w.socket("/greeter/chat", nil)
		require.NoError(t, conn.Write(t.Context(), websocket.MessageBinary, []byte("x")))
		ends(t, conn, 1003, "messages are text with JSON, or binary with the subprotocol micro.protobuf")
		conn = w.socket("/greeter/deaf", nil)
		say(t, conn, "")
		say(t, conn, "{}")
		ends(t, conn, 1008, "a message after the end of what the client sends")
	})
	require.Eventually(t, func() bool { return w.running.Load() == 0 }, soon, time.Millisecond)
}

func TestWebSocketThatIsNone(t *testing.T) {
	w := newWorld(t)
	without := func(name string) []string {
		var list []string
		for _, h := range handshake {
			if !strings.HasPrefix(h, name) {
				list = append(list, h)
			}
		}
		return list
	}
	for name, c := range map[string]struct {
		method, path string
		headers      []string
		status       int
	}{
		"a call":             {"GET", "/greeter/hello", handshake, 400},
		"nothing":            {"GET", "/greeter/nope", handshake, 404},
		"POST":               {"POST", "/greeter/chat", handshake, 405},
		"no version":         {"GET", "/greeter/chat", without("Sec-WebSocket-Version"), 426},
		"no key":             {"GET", "/greeter/chat", without("Sec-WebSocket-Key"), 400},
		"a query":            {"GET", "/greeter/chat?name=Ada", handshake, 400},
		"a wrong query":      {"GET", "/greeter/count?nmae=Ada", handshake, 400},
		"a query, protobuf":  {"GET", "/greeter/count?zip=1", append([]string{"Sec-WebSocket-Protocol: micro.protobuf"}, handshake...), 415},
		"a wrong time":       {"GET", "/greeter/chat", append([]string{"X-Request-Timeout: x"}, handshake...), 400},
		"another origin":     {"GET", "/greeter/chat", append([]string{"Origin: https://evil.example"}, handshake...), 403},
		"no origin":          {"GET", "/greeter/chat", append([]string{"Origin: null"}, handshake...), 403},
		"a part of the host": {"GET", "/greeter/chat", append([]string{"Origin: http://127.0.0.1"}, handshake...), 403},
		"another site":       {"GET", "/greeter/chat", append([]string{"Sec-Fetch-Site: cross-site", "Origin: " + w.http.URL}, handshake...), 403},
		"two origins":        {"GET", "/greeter/chat", append([]string{"Origin: " + w.http.URL, "Origin: https://evil.example"}, handshake...), 403},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.problem(w.do(c.method, c.path, "", c.headers...))
			require.Equal(t, c.status, p.Status, p.Detail)
		})
	}
}

func TestWebSocketOrigins(t *testing.T) {
	vouched := false
	w := newWorld(t, with(func(o *rpc.Options) { o.Origins = []string{"https://app.example", "https://*.app.example"} }),
		middleware(func(_ *http.Request, info *gateway.Info) error {
			info.CrossOrigin = vouched
			return nil
		}))
	for origin, ok := range map[string]bool{"": true, w.http.URL: true, "https://app.example": true, "https://APP.example": true, "https://a.app.example": true,
		"http://app.example": false, "https://xapp.example": false, "https://app.example:444": false, "https://app.example.evil": false, "app.example": false} {
		o := &websocket.DialOptions{HTTPHeader: http.Header{}}
		if origin != "" {
			o.HTTPHeader.Set("Origin", origin)
		}
		conn, rsp, err := websocket.Dial(t.Context(), w.http.URL+"/greeter/chat", o)
		require.Equal(t, ok, err == nil, origin)
		if !ok {
			require.Equal(t, 403, rsp.StatusCode)
			vouched = true
			conn, _, err = websocket.Dial(t.Context(), w.http.URL+"/greeter/chat", o)
			require.NoError(t, err)
			vouched = false
		}
		require.NoError(t, conn.CloseNow())
	}
}

func TestWebSocketLimits(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) { o.MaxBody, o.WriteTimeout = 100, time.Second }))
	conn := w.socket("/greeter/chat", nil)
	say(t, conn, `{"name":"`+strings.Repeat("x", 100)+`"}`)
	_, _, err := conn.Read(t.Context())
	require.Equal(t, websocket.StatusMessageTooBig, websocket.CloseStatus(err))

	w.socket("/greeter/flood?", nil) // and its client reads nothing
	flood := w.socket("/greeter/flood", nil)
	say(t, flood, `{}`)
	held := int64(0)
	require.Eventually(t, func() bool {
		before := held
		held = w.greeter.calls.Load()
		return held > 0 && held == before
	}, soon, 100*time.Millisecond)
	require.Less(t, held, int64(1000), "of 32 KiB each")
	require.Eventually(t, func() bool { return w.greeter.ended.Load() == 1 }, soon, time.Millisecond)
}

func TestWebSocketClientGone(t *testing.T) {
	w := newWorld(t)
	for i, leave := range []func(*websocket.Conn){
		func(c *websocket.Conn) { c.CloseNow() },
		func(c *websocket.Conn) { c.Close(websocket.StatusNormalClosure, "") },
	} {
		conn := w.socket("/greeter/deaf", nil)
		leave(conn)
		require.Eventually(t, func() bool { return w.greeter.ended.Load() == int64(i+1) }, soon, time.Millisecond)
	}
	conn := w.socket("/greeter/sum", nil)
	say(t, conn, `{"zip":1}`)
	require.Eventually(t, func() bool { return w.greeter.calls.Load() == 1 }, soon, time.Millisecond)
	require.NoError(t, conn.Close(websocket.StatusNormalClosure, ""))
	require.Eventually(t, func() bool { return w.greeter.ended.Load() == 3 }, soon, time.Millisecond, "it is cancelled: this is not how requests end")
	require.Eventually(t, func() bool { return w.running.Load() == 0 }, soon, time.Millisecond)
}

// TestWebSocketSignsOfLife: a client that gives none is given up; one that the service does not keep up with is not.
func TestWebSocketSignsOfLife(t *testing.T) {
	w := newWorld(t, with(func(o *rpc.Options) { o.Heartbeat, o.WriteTimeout = 200*time.Millisecond, 400*time.Millisecond }))
	c := w.dial()
	fmt.Fprintf(c, "GET /greeter/deaf HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", strings.Join(handshake, "\r\n"))
	_, err := io.Copy(io.Discard, c) // and no pong
	require.NoError(t, err)
	require.Eventually(t, func() bool { return w.greeter.ended.Load() == 1 }, soon, time.Millisecond)

	pings := make(chan struct{}, 100)
	o := &websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool {
		pings <- struct{}{}
		return true
	}}
	chat := w.socket("/greeter/chat", o)
	deaf := w.socket("/greeter/deaf", o)
	ended := make(chan error, 3)
	for _, conn := range []*websocket.Conn{chat, deaf} {
		go func() {
			_, _, err := conn.Read(context.Background())
			ended <- err
		}()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		large := []byte(`{"name":"` + strings.Repeat("x", 64<<10) + `"}`)
		for err := error(nil); err == nil; {
			err = deaf.Write(ctx, websocket.MessageText, large)
		}
		ended <- nil
	}()
	for range 16 {
		select {
		case <-pings:
		case err := <-ended:
			t.Fatal(err)
		}
	}
	say(t, chat, "{}")
	require.NoError(t, <-ended, "the answer")
	cancel()
	<-ended
	<-ended
}

// TestHTTP2: all that goes over one connection has its own end.
func TestHTTP2(t *testing.T) {
	w := newWorld(t, overHTTP2, with(func(o *rpc.Options) { o.Heartbeat = 20 * time.Millisecond }),
		func(w *world, _ *rpc.Options) {
			w.config.ReadTimeout, w.config.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
		})
	rsp := w.open("POST", "/greeter/hello", strings.NewReader(`{"name":"Ada"}`), jsonType)
	require.Equal(t, 2, rsp.ProtoMajor)
	text, err := io.ReadAll(rsp.Body)
	require.NoError(t, err)
	require.Equal(t, `{"message":"Hello, Ada"}`, string(text))

	rsp = w.open("GET", "/greeter/count?zip=1&city=wait", nil, acceptEvents)
	events := bufio.NewReader(rsp.Body)
	require.Equal(t, `data: {"zip":1}`, line(t, events))
	for range 40 {
		require.Equal(t, "", line(t, events))
		require.Equal(t, ":", line(t, events))
	}
	rsp.Body.Close()
	require.Eventually(t, func() bool { return w.greeter.ended.Load() == 1 }, soon, time.Millisecond, "client gone")

	in, out := io.Pipe()
	go io.WriteString(out, `{"name":"Ada"}`)
	rsp = w.open("POST", "/greeter/chat", in, jsonType)
	answers := bufio.NewReader(rsp.Body)
	require.Equal(t, `{"message":"Hello, Ada"}`, line(t, answers))
	require.NoError(t, out.Close())
	_, err = answers.ReadByte()
	require.Equal(t, io.EOF, err)
	require.Eventually(t, func() bool { return w.running.Load() == 0 }, soon, time.Millisecond)
}

// TestManyStreamsAtOnce: whatever clients do, nothing is left of it.
func TestManyStreamsAtOnce(t *testing.T) {
	w := newWorld(t)
	var clients sync.WaitGroup
	for i := range 60 {
		clients.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			switch i % 4 {
			case 0, 1:
				r, _ := http.NewRequestWithContext(ctx, "GET", w.http.URL+"/greeter/count?zip=3&city=wait", nil)
				if i%4 == 0 {
					r.Header.Set("Accept", "text/event-stream")
				}
				rsp, err := w.http.Client().Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				defer rsp.Body.Close()
				if _, err := bufio.NewReader(rsp.Body).ReadString('\n'); err != nil {
					t.Error(err)
				}
			case 2:
				conn, _, err := websocket.Dial(ctx, w.http.URL+"/greeter/chat", nil)
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.CloseNow()
				for range 10 {
					if err := conn.Write(ctx, websocket.MessageText, []byte(`{"name":"Ada"}`)); err != nil {
						t.Error(err)
					}
					if _, _, err := conn.Read(ctx); err != nil {
						t.Error(err)
					}
				}
			case 3:
				in, out := io.Pipe()
				r, _ := http.NewRequestWithContext(ctx, "POST", w.http.URL+"/greeter/sum", in)
				go func() {
					for range 10 {
						io.WriteString(out, `{"zip":1}`)
					}
					cancel()
					out.CloseWithError(io.ErrUnexpectedEOF) // the transport waits for it
				}()
				if rsp, err := w.http.Client().Do(r); err == nil {
					rsp.Body.Close()
				}
			}
		})
	}
	clients.Wait()
	require.Eventually(t, func() bool { return w.running.Load() == 0 }, soon, time.Millisecond)
}
