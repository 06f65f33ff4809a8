package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startGateway starts a program that is one, and returns its addresses.
func (m *machine) startGateway(program string, args ...string) (p *process, public, admin string) {
	args = append(args, "--gateway-address=127.0.0.1:0", "--gateway-admin-address=127.0.0.1:0")
	p = m.start(nil, program, args...)
	p.prints("the gateway serves")
	found := regexp.MustCompile(`the gateway serves address=(\S+) admin=(\S+)`).FindStringSubmatch(p.out.String())
	require.NotNil(m.t, found)
	return p, "http://" + found[1], "http://" + found[2]
}

// asks are HTTP requests by connections that are kept.
func asks(t *testing.T) *http.Client {
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: time.Minute}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func post(c *http.Client, url, body string) (status int, answer string, err error) {
	resp, err := c.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

func TestGateway(t *testing.T) {
	m := newMachine(t)
	g, public, admin := m.startGateway("micro", "gateway")
	c := asks(t)
	status, answer, err := post(c, public+"/greeter/hello", `{"name":"Ada"}`)
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, status, answer)

	greeter := m.start(nil, "greeter")
	answers := func() bool {
		status, answer, err := post(c, public+"/greeter/hello", `{"name":"Ada"}`)
		require.NoError(t, err)
		return status == http.StatusOK && answer == `{"message":"Hello, Ada"}`
	}
	require.Eventually(t, answers, 20*time.Second, 10*time.Millisecond, "the gateway finds what comes after it")
	_, answer, err = post(c, public+"/v1/rpc", `{"service":"greeter","endpoint":"Greeter.Hello","body":{"name":"Grace"}}`)
	require.NoError(t, err)
	require.Equal(t, `{"message":"Hello, Grace"}`, answer)
	resp, err := c.Get(admin + "/openapi.json")
	require.NoError(t, err)
	var document struct{ Paths map[string]any }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&document))
	resp.Body.Close()
	require.Contains(t, document.Paths, "/greeter/hello")

	greeter.signal(syscall.SIGKILL)
	<-greeter.done
	status, answer, err = post(c, public+"/greeter/hello", `{"name":"Ada"}`)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, status, answer)
	m.start(nil, "greeter")
	require.Eventually(t, answers, 20*time.Second, 10*time.Millisecond)

	g.stop()
	require.Zero(t, g.cmd.ProcessState.ExitCode(), g.out.String())
	require.Contains(t, g.out.String(), "INFO stopped")
}

func TestGatewayExample(t *testing.T) {
	m := newMachine(t)
	m.start(nil, "greeter")
	m.waitNodes("greeter", 1)
	g, public, _ := m.startGateway("gateway", "--gateway-middleware=teapot", "--middleware-teapot-paths=/coffee")
	c := asks(t)
	status, answer, err := post(c, public+"/coffee/black", "{}")
	require.NoError(t, err)
	require.Equal(t, http.StatusTeapot, status)
	require.Contains(t, answer, "this is a teapot")
	_, answer, err = post(c, public+"/greeter/hello", `{"name":"Ada"}`)
	require.NoError(t, err)
	require.Equal(t, `{"message":"Hello, Ada"}`, answer)
	g.stop()
	require.Zero(t, g.cmd.ProcessState.ExitCode(), g.out.String())

	_, errs, code := m.run("gateway", "--gateway-middleware=teapot")
	require.NotZero(t, code)
	require.Contains(t, errs, "middleware/teapot: paths: say which")
	out, _, code := m.run("gateway", "--help")
	require.Zero(t, code)
	require.Contains(t, out, "--gateway-address")
	require.Contains(t, out, "--middleware-teapot-paths")
}

// TestEverythingIsReplacedUnderLoad restarts services and gateways, one after the other, while requests come. Those who send
// them do what balancers do: they ask /readyz, and keep connections.
func TestEverythingIsReplacedUnderLoad(t *testing.T) {
	m := newMachine(t)
	greeters := []*process{m.start(nil, "greeter"), m.start(nil, "greeter")}
	m.waitNodes("greeter", 2)
	type place struct {
		process *process
		url     string
	}
	var gateways [2]atomic.Pointer[place]
	begin := func(i int) {
		p, url, _ := m.startGateway("micro", "gateway", "--gateway-stop-delay=1s", "--gateway-access-log=false")
		gateways[i].Store(&place{p, url})
	}
	begin(0)
	begin(1)

	c := asks(t)
	var ready [2]atomic.Bool
	stop := make(chan struct{})
	var work sync.WaitGroup
	look := func(i int) {
		resp, err := c.Get(gateways[i].Load().url + "/readyz")
		ready[i].Store(err == nil && resp.StatusCode == http.StatusOK)
		if err == nil {
			resp.Body.Close()
		}
	}
	look(0)
	look(1)
	for i := range gateways {
		work.Go(func() {
			for often := time.NewTicker(50 * time.Millisecond); ; {
				select {
				case <-often.C:
					look(i)
				case <-stop:
					often.Stop()
					return
				}
			}
		})
	}
	var sent atomic.Int64
	var mu sync.Mutex
	var failures bytes.Buffer
	for worker := range 8 {
		work.Go(func() {
			for n := worker; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				i := n % 2
				if !ready[i].Load() {
					i = 1 - i
				}
				status, answer, err := post(c, gateways[i].Load().url+"/greeter/hello", `{"name":"Ada"}`)
				sent.Add(1)
				if err != nil || status != http.StatusOK {
					mu.Lock()
					failures.WriteString(answer)
					if err != nil {
						failures.WriteString(err.Error())
					}
					mu.Unlock()
				}
			}
		})
	}
	enough := func() {
		at := sent.Load()
		require.Eventually(t, func() bool { return sent.Load() > at+200 }, time.Minute, time.Millisecond)
	}
	for i := range gateways {
		enough()
		old := gateways[i].Load().process
		old.stop()
		require.Zero(t, old.cmd.ProcessState.ExitCode(), old.out.String())
		begin(i)
		require.Eventually(t, ready[i].Load, 20*time.Second, time.Millisecond)
		enough()
		greeters[i].stop()
		m.start(nil, "greeter")
		m.waitNodes("greeter", 2)
	}
	enough()
	close(stop)
	work.Wait()
	require.Empty(t, failures.String(), "of %d requests", sent.Load())
}
