package httpd

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStopLetsRequestsFinish(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	g := start(t, withHandler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(began)
			<-release
		}
		ok(w, r)
	}))
	_, idle := g.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(idle, nil)
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	_, slow := g.raw("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- g.Stop(context.Background()) }()
	_, err = idle.ReadByte()
	require.ErrorIs(t, err, io.EOF, "idle connections are closed")
	_, err = http.Get(g.url("/"))
	require.Error(t, err, "no more connections")
	require.Equal(t, http.StatusServiceUnavailable, g.get("http://"+g.AdminAddr()+"/readyz").status)
	require.Equal(t, http.StatusOK, g.get("http://"+g.AdminAddr()+"/healthz").status, "it is counted and looked at until the end")
	close(release)
	resp, err = http.ReadResponse(slow, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
	require.NoError(t, <-stopped)
	require.Contains(t, g.logs.String(), "msg=stopped")
	require.NoError(t, g.Stop(t.Context()), "again")
}

// TestStopDelay is the time in which others notice that requests are not to be sent here.
func TestStopDelay(t *testing.T) {
	g := start(t, withArgs("--gateway-stop-delay=500ms"), withHandler(ok))
	require.Equal(t, http.StatusOK, g.get(g.url("/readyz")).status)
	stopped := make(chan error, 1)
	began := time.Now()
	go func() { stopped <- g.Stop(context.Background()) }()
	g.eventually("it is not ready", func() bool { return g.Ready() != nil })
	a := g.get(g.url("/readyz"))
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Contains(t, a.body, "the gateway is stopping")
	_, r := g.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n") // a new connection
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.True(t, resp.Close, "the client is told to take another connection for the next request")
	resp.Body.Close()
	require.NoError(t, <-stopped)
	require.GreaterOrEqual(t, time.Since(began), 500*time.Millisecond)
}

// TestStopTellsStreams: those that never end are told before the time is over, and end in order.
func TestStopTellsStreams(t *testing.T) {
	g := start(t, withArgs("--gateway-drain-timeout=500ms"), withHandler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hijack" {
			c, rw, err := http.NewResponseController(w).Hijack()
			require.NoError(t, err)
			defer c.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
			_ = rw.Flush()
			<-r.Context().Done()
			_, _ = rw.WriteString("bye")
			_ = rw.Flush()
			return
		}
		_, _ = io.WriteString(w, "hello")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		_, _ = io.WriteString(w, "bye")
	}))
	resp, err := g.client.Get(g.url("/"))
	require.NoError(t, err)
	defer resp.Body.Close()
	_, upgraded := g.raw("GET /hijack HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_, err = http.ReadResponse(upgraded, nil)
	require.NoError(t, err)
	require.NoError(t, g.Stop(context.Background()))
	for _, r := range []io.Reader{resp.Body, upgraded} {
		body, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "hellobye", string(body))
	}
	require.NotContains(t, g.logs.String(), "client_gone=true")
}

func TestStopCutsOff(t *testing.T) {
	release := make(chan struct{})
	g := start(t, withArgs("--gateway-drain-timeout=200ms"), withHandler(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-release // whatever its context says
	}))
	resp, err := g.client.Get(g.url("/"))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.ErrorContains(t, g.Stop(context.Background()), "requests were cut off when 200ms had passed, which is the drain-timeout")
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err)
	close(release)
}

// TestRollingRestart replaces two gateways, one after the other, under load. Clients do what balancers do: they send
// requests to those that are ready, by connections that are kept.
func TestRollingRestart(t *testing.T) {
	var gateways [2]atomic.Pointer[running]
	begin := func(i int) {
		gateways[i].Store(start(t, withArgs("--gateway-stop-delay=300ms", "--gateway-access-log=false"), withHandler(ok)))
	}
	begin(0)
	begin(1)
	var ready [2]atomic.Bool
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	look := func(i int) {
		resp, err := client.Get(gateways[i].Load().url("/readyz"))
		ready[i].Store(err == nil && resp.StatusCode == http.StatusOK)
		if err == nil {
			resp.Body.Close()
		}
	}
	look(0)
	look(1)
	work.Go(func() {
		often := time.NewTicker(20 * time.Millisecond)
		defer often.Stop()
		for ctx.Err() == nil {
			look(0)
			look(1)
			<-often.C
		}
	})
	var sent, failed atomic.Int64
	for worker := range 4 {
		work.Go(func() {
			for i := worker; ctx.Err() == nil; i++ {
				n := i % 2
				if !ready[n].Load() {
					n = 1 - n
				}
				resp, err := client.Post(gateways[n].Load().url("/x"), "text/plain", http.NoBody)
				sent.Add(1)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Log(err)
					failed.Add(1)
				}
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
		})
	}
	enough := func(n int64) {
		at := sent.Load()
		require.Eventually(t, func() bool { return sent.Load() > at+n }, soon, time.Millisecond)
	}
	for range 3 {
		for i := range gateways {
			enough(300)
			require.NoError(t, gateways[i].Load().Stop(context.Background()))
			begin(i)
			require.Eventually(t, ready[i].Load, soon, time.Millisecond)
		}
	}
	cancel()
	work.Wait()
	require.Zero(t, failed.Load(), "of %d", sent.Load())
}
