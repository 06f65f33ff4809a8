package httpd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
)

type number struct {
	Value int `json:"value"`
}

// Numbers is a service.
type Numbers struct {
	slow chan struct{} // closed when Slow runs
}

// Double answers a call.
func (Numbers) Double(_ context.Context, n *number) (*number, error) {
	return &number{2 * n.Value}, nil
}

// Slow answers when it is cancelled, and not before.
func (s Numbers) Slow(ctx context.Context, n *number) (*number, error) {
	if s.slow != nil {
		close(s.slow)
	}
	<-ctx.Done()
	return n, ctx.Err()
}

// Begin answers with one number, and then waits.
func (Numbers) Begin(ctx context.Context, n *number, out *server.Sender[number]) error {
	if err := out.Send(n); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// Break answers with one number, and then fails.
func (Numbers) Break(_ context.Context, n *number, out *server.Sender[number]) error {
	if err := out.Send(n); err != nil {
		return err
	}
	return status.Errorf(status.Code(n.Value), "broken")
}

// Sum answers a stream of requests.
func (Numbers) Sum(_ context.Context, in *server.Receiver[number]) (*number, error) {
	sum := &number{}
	for n, err := range in.All() {
		if err != nil {
			return nil, err
		}
		sum.Value += n.Value
	}
	return sum, nil
}

// serveNumbers starts a real service that the gateway finds.
func (r *running) serveNumbers() { r.serve(Numbers{}) }

func (r *running) serve(n Numbers) {
	svc := micro.New("numbers", micro.WithRegistry(r.registry), micro.WithArgs(), micro.WithEnviron(),
		micro.WithLogger(slog.New(slog.DiscardHandler)), micro.WithSetting("drain-timeout", "1s"))
	svc.Handle(n)
	require.NoError(r.t, svc.Start(r.t.Context()))
	r.t.Cleanup(func() { _ = svc.Stop(context.Background()) })
	r.eventually("the service is found", func() bool { return r.backend.directory.Service("numbers") != nil })
}

func TestWhole(t *testing.T) {
	g := start(t)
	g.serveNumbers()
	resp, err := g.client.Post(g.url("/numbers/double"), "application/json", strings.NewReader(`{"value":4}`))
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, `{"value":8}`, string(body))
	require.Equal(t, `{"value":8}`, g.get(g.url("/numbers/double?value=4")).body)
	require.Equal(t, http.StatusNotFound, g.get(g.url("/nobody/there")).status)
	require.Contains(t, g.get(g.url("/openapi.json")).body, "/numbers/double")
	require.Equal(t, "1", g.metric(`micro_gateway_requests_total{code="200",method="POST",route="numbers Numbers.Double"}`))
	require.Equal(t, "1", g.metric(`micro_gateway_requests_total{code="404",method="GET",route="none"}`))
	require.NotEqual(t, "0", g.metric("micro_gateway_received_bytes_total"))

	head, err := g.client.Head(g.url("/openapi.json"))
	require.NoError(t, err)
	head.Body.Close()
	require.Equal(t, http.StatusOK, head.StatusCode)
	resp, err = g.client.Post(g.url("/openapi.json"), "", nil)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
}

// TestStreamErrorsAreSeen: their status was said before they failed.
func TestStreamErrorsAreSeen(t *testing.T) {
	g := start(t)
	g.serveNumbers()
	for _, code := range []status.Code{status.Aborted, status.Internal} {
		require.Equal(t, http.StatusOK, g.get(g.url(fmt.Sprintf("/numbers/break?value=%d", code))).status)
		g.eventuallyLogs("stream_error=" + code.String())
		require.Equal(t, "1", g.metric(fmt.Sprintf("micro_gateway_stream_errors_total{code=%q}", code)))
	}
	require.Equal(t, http.StatusOK, g.get(g.url("/numbers/double?value=4")).status)
	require.Equal(t, 2, strings.Count(g.logs.String(), "stream_error="))
	c, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(g.url("/numbers/break"), "http"), nil)
	require.NoError(t, err)
	defer c.CloseNow()
	require.NoError(t, c.Write(t.Context(), websocket.MessageText, []byte(`{"value":15}`)))
	for err == nil {
		_, _, err = c.Read(t.Context())
	}
	g.eventuallyLogs("stream_error=DataLoss")
}

// TestPublicServices describes no more than it lets in.
func TestPublicServices(t *testing.T) {
	g := start(t, withArgs("--gateway-services=shop*"))
	g.serveNumbers()
	require.Equal(t, http.StatusNotFound, g.get(g.url("/numbers/double?value=4")).status)
	require.NotContains(t, g.get(g.url("/openapi.json")).body, "numbers")
}

// TestStopEndsStreams has streams of a real service that would go on for ever.
func TestStopEndsStreams(t *testing.T) {
	g := start(t, withArgs("--gateway-drain-timeout=2s"))
	g.serveNumbers()
	req, err := http.NewRequest(http.MethodGet, g.url("/numbers/begin?value=1"), nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := g.client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	events := bufio.NewReader(resp.Body)
	line, err := events.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "data: {\"value\":1}\n", line)

	ws, _, err := websocket.Dial(t.Context(), g.url("/numbers/begin?value=2"), nil)
	require.NoError(t, err)
	defer ws.CloseNow()
	_, message, err := ws.Read(t.Context())
	require.NoError(t, err)
	require.JSONEq(t, `{"value":2}`, string(message))

	stopped := make(chan error, 1)
	began := time.Now()
	go func() { stopped <- g.Stop(context.Background()) }()
	rest, err := io.ReadAll(events)
	require.NoError(t, err, "it ends in order")
	require.Contains(t, string(rest), "event: error")
	_, _, err = ws.Read(t.Context())
	require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err))
	require.Greater(t, time.Since(began), time.Second, "they had the time to end by themselves")
	require.NoError(t, <-stopped)
}

// TestStopCutsCalls: what the service has begun is not to be asked again as if nothing had happened.
func TestStopCutsCalls(t *testing.T) {
	g := start(t, withArgs("--gateway-drain-timeout=1s"))
	runs := make(chan struct{})
	g.serve(Numbers{slow: runs})
	answered := make(chan answer, 1)
	go func() { answered <- g.get(g.url("/numbers/slow?value=1")) }()
	<-runs
	require.NoError(t, g.Stop(context.Background()))
	a := <-answered
	require.Equal(t, http.StatusBadGateway, a.status, a.body)
	require.Contains(t, a.body, "the gateway stops, and service numbers was not done with its answer: what was asked may have been done")
	require.NotContains(t, a.body, "try again")
}
