//go:build unix

package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/registry"
	"github.com/stretchr/testify/require"
)

const soon = 10 * time.Second // on a busy machine; it takes some milliseconds

func eventually(t *testing.T, ok func() bool, what ...any) {
	t.Helper()
	require.Eventually(t, ok, soon, 10*time.Millisecond, what...)
}

func greeter(name string, ids ...string) *registry.Service {
	s := &registry.Service{Name: name, Version: "1.2.3"}
	for _, id := range ids {
		s.Nodes = append(s.Nodes, &registry.Node{ID: id, Address: "192.0.2.1:4100"})
	}
	return s
}

// ids are those of the nodes that r returns for a service.
func ids(t *testing.T, r *Registry, name string) []string {
	t.Helper()
	found, err := r.GetService(name)
	if err != nil {
		require.ErrorIs(t, err, registry.ErrNotFound)
	}
	list := []string{}
	for _, s := range found {
		for _, n := range s.Nodes {
			list = append(list, n.ID)
		}
	}
	return list
}

func hasIDs(t *testing.T, r *Registry, name string, want ...string) {
	t.Helper()
	var got []string
	for end := time.Now().Add(soon); time.Now().Before(end); {
		if got = ids(t, r, name); fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
	}
	require.Equal(t, want, got)
}

// next is what w tells next of a service.
func next(t *testing.T, w registry.Watcher, name, action string) *registry.Service {
	t.Helper()
	for {
		told, err := w.Next()
		require.NoError(t, err)
		if told.Service.Name == name {
			require.Equal(t, action, told.Action)
			return told.Service
		}
	}
}

// foreign is another program's view of a server.
type foreign struct {
	*api.Client
	t *testing.T
}

func newForeign(t *testing.T, addr string) foreign {
	conns := &http.Transport{}
	t.Cleanup(conns.CloseIdleConnections)
	c, err := api.NewClient(&api.Config{Address: addr, HttpClient: &http.Client{Transport: conns}})
	require.NoError(t, err)
	return foreign{c, t}
}

// state is the aggregated health of a service's only instance, empty if there is none.
func (f foreign) state(name string) string {
	f.t.Helper()
	entries, _, err := f.Health().Service(name, "", false, nil)
	require.NoError(f.t, err)
	if len(entries) == 0 {
		return ""
	}
	require.Len(f.t, entries, 1)
	return entries[0].Checks.AggregatedStatus()
}

func (f foreign) becomes(name, state string) {
	f.t.Helper()
	eventually(f.t, func() bool { return f.state(name) == state }, "%s does not become %q", name, state)
}

// index is that of all checks: it moves when something was written.
func (f foreign) index() uint64 {
	f.t.Helper()
	_, meta, err := f.Health().State("any", nil)
	require.NoError(f.t, err)
	return meta.LastIndex
}

// TestOneServer is what needs a server, but does not hurt it.
func TestOneServer(t *testing.T) {
	server := servers.Consul(t)
	neighbour(t, server)
	other := newForeign(t, server.Addr)
	for name, test := range map[string]func(*testing.T, *servers.Server, foreign){
		"Foreigners see it":            testForeigners,
		"Foreign services":             testForeignServices,
		"Foreign names":                testForeignNames,
		"One service is refused":       testOneRefused,
		"An outage in the log":         testOutageInLog,
		"Other checks":                 testOtherChecks,
		"Probes":                       testProbes,
		"A refresh writes nothing":     testRefresh,
		"Lost at the agent":            testLost,
		"Lapsed and changed":           testLapsed,
		"Largest":                      testLargest,
		"Many services, one long poll": testManyServices,
		"An index that went backwards": testBackwards,
		"A node that was half written": testHalfWritten,
		"Consistency":                  testConsistency,
		"Environment of Consul":        testEnvironment,
		"Enterprise":                   testEnterprise,
		"Agents in order":              testAgentsInOrder,
		"A silent agent is left":       testSilentAgent,
		"Deregister in time":           testDeregisterInTime,
		"Never reached":                testNeverReached,
		"A connection that was cut":    testCut,
		"Direct":                       testDirect,
		"Calls ask for nothing":        testCalls,
	} {
		t.Run(name, func(t *testing.T) { test(t, server, other) })
	}
}

func testForeigners(t *testing.T, server *servers.Server, other foreign) {
	c := settings(server.Addr)
	c.Tags = []string{"blue"}
	r := open(t, c)
	s := greeter("foreign.Seen", "one")
	s.Metadata = map[string]string{"team": "größer", "no key for Consul": "x", "version": "not this one"}
	s.Nodes[0].Metadata = map[string]string{"zone": "a", "long": strings.Repeat("x", maxValue+1)}
	s.Nodes[0].Address = "[2001:db8::1]:4100"
	require.NoError(t, r.Register(s, registry.TTL(2*time.Second)))

	tags, _, err := other.Catalog().Services(nil)
	require.NoError(t, err)
	require.Equal(t, []string{"blue", "micro"}, sorted(tags["foreign.Seen"]))
	binary := filepath.Join(servers.Dir(), "consul", "consul")
	out, err := exec.Command(binary, "catalog", "services", "-tags", "-http-addr="+server.Addr).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Regexp(t, `(?m)^foreign\.Seen\s+blue,micro$`, string(out))
	out, err = exec.Command(binary, "catalog", "nodes", "-service=foreign.Seen", "-http-addr="+server.Addr).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "test-")

	entries, _, err := other.Health().Service("foreign.Seen", "", true, nil)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	seen := entries[0].Service
	require.Equal(t, "2001:db8::1", seen.Address)
	require.Equal(t, 4100, seen.Port)
	require.Equal(t, "1.2.3", seen.Meta["version"])
	require.Equal(t, "größer", seen.Meta["team"])
	require.Equal(t, "a", seen.Meta["zone"])
	require.NotContains(t, seen.Meta, "long")

	other.becomes("foreign.Seen", api.HealthCritical) // nobody refreshes it
	require.Empty(t, ids(t, r, "foreign.Seen"))
	list, err := r.ListServices()
	require.NoError(t, err)
	require.NotContains(t, list, &registry.Service{Name: "foreign.Seen"})
	require.NoError(t, r.Register(s, registry.TTL(time.Minute)))
	require.Equal(t, api.HealthPassing, other.state("foreign.Seen"))
	require.Equal(t, []string{"one"}, ids(t, r, "foreign.Seen"))
	require.NoError(t, r.Deregister(s))
	other.becomes("foreign.Seen", "")
}

func testForeignServices(t *testing.T, server *servers.Server, other foreign) {
	r := open(t, settings(server.Addr))
	w, err := r.Watch()
	require.NoError(t, err)
	id := func(node string) string { return serviceID("mixed", node) }
	garbage := map[string]*api.AgentServiceRegistration{
		"another program's":          {ID: "plain", Name: "mixed", Port: 80},
		"with our tag":               {ID: "tagged", Name: "mixed", Tags: []string{marker}},
		"without Meta":               {ID: id("empty"), Name: "mixed", Tags: []string{marker}, Check: &api.AgentServiceCheck{CheckID: checkPrefix + id("empty"), TTL: "1h", Status: "passing"}},
		"with garbage":               {ID: id("garbage"), Name: "mixed", Meta: map[string]string{"micro-0": "!!"}, Tags: []string{marker}, Check: &api.AgentServiceCheck{CheckID: checkPrefix + id("garbage"), TTL: "1h", Status: "passing"}},
		"with notes of another form": {ID: id("notes"), Name: "mixed", Meta: map[string]string{"micro-0": "AAAA"}, Tags: []string{marker}, Check: &api.AgentServiceCheck{CheckID: checkPrefix + id("notes"), TTL: "1h", Status: "passing", Notes: "\n\x00 ~"}},
		"with another's name":        {ID: "~zz:~", Name: "mixed", Tags: []string{marker}, Check: &api.AgentServiceCheck{CheckID: checkPrefix + "~zz:~", TTL: "1h", Status: "passing"}},
		"of another node":            {ID: id("liar"), Name: "mixed", Tags: []string{marker}, Check: &api.AgentServiceCheck{CheckID: checkPrefix + id("liar"), TTL: "1h", Status: "passing"}},
	}
	lie, _, err := pack(greeter("mixed", "truth"))
	require.NoError(t, err)
	garbage["of another node"].Meta = lie
	for what, reg := range garbage {
		require.NoError(t, other.Agent().ServiceRegister(reg), what)
		t.Cleanup(func() { _ = other.Agent().ServiceDeregister(reg.ID) })
	}
	eventually(t, func() bool {
		entries, _, err := other.Health().Service("mixed", "", false, nil)
		return err == nil && len(entries) == len(garbage)
	})
	require.Empty(t, ids(t, r, "mixed"))
	log := make(lines, 100)
	process := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("service", "orders", "id", "orders-1")
	says, err := Open(settings(server.Addr), process)
	require.NoError(t, err)
	require.Empty(t, ids(t, says, "mixed"))
	require.NoError(t, says.Close())
	require.NotEmpty(t, log, "what is left out is said")
	close(log)
	for line := range log {
		require.Equal(t, 1, strings.Count(line, " service="), line)
		require.Equal(t, 1, strings.Count(line, " id="), line)
	}
	_, err = r.ListServices()
	require.NoError(t, err)
	s := greeter("mixed", "good")
	require.NoError(t, r.Register(s))
	require.Equal(t, []string{"good"}, ids(t, r, "mixed"))
	told := next(t, w, "mixed", registry.Create)
	require.True(t, s.Equal(told), "the first that a watcher is told of: %v", told)
	require.NoError(t, r.Deregister(s))
	require.Equal(t, "good", next(t, w, "mixed", registry.Delete).Nodes[0].ID)
}

// testForeignNames: whoever may write to Consul can make services look as if they were Micro's, whatever they are called.
func testForeignNames(t *testing.T, server *servers.Server, other foreign) {
	r := open(t, settings(server.Addr))
	w, err := r.Watch()
	require.NoError(t, err)
	for i, odd := range []struct{ name, id string }{
		{"..", "x"}, {"../../v1/status/leader", "x"}, {"a/b", "x"}, {"a?b=c", "x"}, {"a%2fb", "x"}, {"a b", "x"},
		{"odd", `x"y`}, {"odd", `x\y`}, {"odd", "x`y"}, {"odd", "odd:"}, {"odd", `odd:"`},
		{"~2e.", "~2e.:x"}, // well-formed
		{strings.Repeat("long", 1_000), strings.Repeat("long", 1_000) + ":x"}, // well-formed
		{"long-ids", "long-ids:" + strings.Repeat("x", maxFilter)},            // well-formed
	} {
		t.Run(fmt.Sprintf("%.20q %.20q", odd.name, odd.id), func(t *testing.T) {
			require.NoError(t, other.Agent().ServiceRegister(&api.AgentServiceRegistration{
				ID: odd.id, Name: odd.name, Tags: []string{marker},
				Check: &api.AgentServiceCheck{CheckID: checkPrefix + odd.id, TTL: "1h", Status: api.HealthPassing},
			}))
			t.Cleanup(func() { require.NoError(t, other.Agent().ServiceDeregister(odd.id)) })
			eventually(t, func() bool {
				checks, _, err := other.Health().State("any", nil)
				return err == nil && slices.ContainsFunc(checks, func(c *api.HealthCheck) bool { return c.CheckID == checkPrefix+odd.id })
			})
			s := greeter(fmt.Sprint("beside-", i), "a")
			require.NoError(t, r.Register(s))
			require.True(t, s.Equal(next(t, w, s.Name, registry.Create)))
			list, err := r.ListServices()
			require.NoError(t, err)
			require.Contains(t, list, &registry.Service{Name: s.Name})
			require.NoError(t, r.Deregister(s))
		})
	}
}

// front passes requests on to the server, but for those that are to be refused.
func front(t *testing.T, server *servers.Server, refuse func(*http.Request) bool) *httptest.Server {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server.Addr})
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	f := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if refuse(req) {
			http.Error(w, "not today", http.StatusInternalServerError)
			return
		}
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(f.Close)
	return f
}

// lines are those of a log.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// testOutageInLog: an outage is said once, and its end, however often Consul is asked meanwhile.
func testOutageInLog(t *testing.T, server *servers.Server, _ foreign) {
	var down atomic.Bool
	asked := make(chan bool, 100)
	proxy := front(t, server, func(*http.Request) bool {
		if down.Load() {
			asked <- true
		}
		return down.Load()
	})
	log := make(lines, 100)
	process := slog.New(slog.NewTextHandler(log, nil)).With("service", "orders", "id", "orders-1", "plugin", "registry/consul")
	r, err := Open(settings(proxy.URL), process)
	require.NoError(t, err)
	_, err = r.Watch()
	require.NoError(t, err)
	writer := open(t, settings(server.Addr))
	for i := range 2 {
		down.Store(true)
		require.NoError(t, writer.Register(greeter("outage", fmt.Sprint(i)))) // which ends the long poll
		for range 3 {
			<-asked
		}
		down.Store(false)
		line := <-log
		require.Contains(t, line, `level=WARN msg="consul cannot be watched`)
		for _, key := range []string{" service=", " id=", " plugin=", " error="} {
			require.Equal(t, 1, strings.Count(line, key), line)
		}
		require.Contains(t, <-log, `level=INFO msg="consul is watched again"`)
	}
	require.NoError(t, r.Close())
	require.Empty(t, log)
	require.NoError(t, writer.Deregister(greeter("outage", "0", "1")))
}

// testOneRefused: what Consul does not tell of one service keeps nobody from hearing of the others.
func testOneRefused(t *testing.T, server *servers.Server, _ foreign) {
	var refuses atomic.Bool
	refuses.Store(true)
	proxy := front(t, server, func(req *http.Request) bool { return refuses.Load() && req.URL.Path == "/v1/health/service/refused" })
	writer, r := open(t, settings(server.Addr)), open(t, settings(proxy.URL))
	w, err := r.Watch()
	require.NoError(t, err)
	refused, s := greeter("refused", "a"), greeter("not-refused", "a")
	require.NoError(t, writer.Register(refused))
	require.NoError(t, writer.Register(s))
	told, err := w.Next()
	for err == nil && told.Service.Name != s.Name {
		require.NotEqual(t, refused.Name, told.Service.Name)
		told, err = w.Next()
	}
	require.NoError(t, err)
	require.True(t, s.Equal(told.Service))
	refuses.Store(false)
	require.True(t, refused.Equal(next(t, w, refused.Name, registry.Create)), "it was asked for again")
	require.NoError(t, writer.Deregister(refused))
	require.NoError(t, writer.Deregister(s))
}

func testOtherChecks(t *testing.T, server *servers.Server, other foreign) {
	r := open(t, settings(server.Addr))
	s := greeter("checked", "a")
	require.NoError(t, r.Register(s))
	id := serviceID("checked", "a")
	require.NoError(t, other.Agent().EnableServiceMaintenance(id, "by hand"))
	hasIDs(t, r, "checked")
	require.NoError(t, other.Agent().DisableServiceMaintenance(id))
	hasIDs(t, r, "checked", "a")

	w, err := r.Watch()
	require.NoError(t, err)
	require.NoError(t, other.Agent().EnableNodeMaintenance("by hand"))
	t.Cleanup(func() { _ = other.Agent().DisableNodeMaintenance() })
	next(t, w, "checked", registry.Delete)
	require.Empty(t, ids(t, r, "checked"))
	require.NoError(t, other.Agent().DisableNodeMaintenance())
	require.True(t, s.Equal(next(t, w, "checked", registry.Create)))
	require.NoError(t, r.Deregister(s))
}

func testProbes(t *testing.T, server *servers.Server, other foreign) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	healthy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer healthy.Close()
	_, httpPort, err := net.SplitHostPort(healthy.Listener.Addr().String())
	require.NoError(t, err)
	for name, check := range map[string]string{"by-tcp": "tcp", "by-http": "http://:" + httpPort + "/health"} {
		c := settings(server.Addr)
		c.Check = check
		r := open(t, c)
		s := greeter(name, "a")
		s.Nodes[0].Address = address
		require.NoError(t, r.Register(s, registry.TTL(time.Minute)))
		hasIDs(t, r, name, "a")
		checks, _, err := other.Health().Checks(name, nil)
		require.NoError(t, err)
		require.Len(t, checks, 2)
		nobody := greeter(name+"-nobody", "a")
		nobody.Nodes[0].Address = "127.0.0.1:1"
		if check == "tcp" {
			require.NoError(t, r.Register(nobody))
			require.Empty(t, ids(t, r, nobody.Name), "until the agent has reached it")
		}
		nobody.Nodes[0].Address = "amqp://queue"
		err = r.Register(nobody)
		if check == "tcp" {
			require.ErrorIs(t, err, registry.ErrInvalid)
			require.ErrorContains(t, err, "registry-check")
		}
		require.NoError(t, r.Deregister(s))
		require.NoError(t, r.Deregister(nobody))
	}
	c := settings(server.Addr)
	c.Check = "grpc://:1/health"
	r := open(t, c)
	nobody := greeter("by-grpc", "a")
	nobody.Nodes[0].Address = "127.0.0.1:2"
	require.NoError(t, r.Register(nobody))
	checks, err := other.Agent().Checks()
	require.NoError(t, err)
	probe := checks["probe:"+serviceID("by-grpc", "a")]
	require.NotNil(t, probe)
	require.Equal(t, "grpc", probe.Type)
	require.Empty(t, ids(t, r, "by-grpc"))
	require.NoError(t, r.Deregister(nobody))

	c.Check = "tcp"
	r = open(t, c)
	s := greeter("stops-listening", "a")
	s.Nodes[0].Address = address
	require.NoError(t, r.Register(s))
	hasIDs(t, r, s.Name, "a")
	require.NoError(t, l.Close())
	hasIDs(t, r, s.Name)
	require.NoError(t, r.Deregister(s))
}

// testRefresh: a thousand processes that refresh every few seconds would else keep all watchers busy.
func testRefresh(t *testing.T, server *servers.Server, other foreign) {
	r := open(t, settings(server.Addr))
	s := greeter("refreshed", "a")
	require.NoError(t, r.Register(s, registry.TTL(time.Minute)))
	before := other.index()
	for range 20 {
		require.NoError(t, r.Register(s, registry.TTL(time.Minute)))
	}
	require.Equal(t, before, other.index())
	s.Metadata = map[string]string{"k": "v"}
	require.NoError(t, r.Register(s, registry.TTL(time.Minute)))
	require.Greater(t, other.index(), before)
	require.NoError(t, r.Deregister(s))
}

func testLost(t *testing.T, server *servers.Server, other foreign) {
	r := open(t, settings(server.Addr))
	s := greeter("lost", "a")
	id := serviceID("lost", "a")
	require.NoError(t, r.Register(s, registry.TTL(time.Minute)))
	require.NoError(t, other.Agent().ServiceDeregister(id))
	hasIDs(t, r, "lost")
	require.NoError(t, r.Register(s, registry.TTL(time.Minute)))
	require.Equal(t, []string{"a"}, ids(t, r, "lost"))

	require.NoError(t, other.Agent().CheckDeregister(checkPrefix+id))
	hasIDs(t, r, "lost")
	require.NoError(t, r.Register(s, registry.TTL(time.Minute)), "the check alone was lost")
	require.Equal(t, []string{"a"}, ids(t, r, "lost"))

	require.NoError(t, other.Agent().ServiceDeregister(id))
	require.NoError(t, r.Deregister(s), "what is not there is no error")
}

// testLapsed: a check that is registered again keeps its status, which is critical here.
func testLapsed(t *testing.T, server *servers.Server, other foreign) {
	r := open(t, settings(server.Addr))
	s := greeter("lapsed", "a")
	for i := range 2 {
		require.NoError(t, r.Register(s, registry.TTL(100*time.Millisecond)))
		other.becomes("lapsed", api.HealthCritical)
		s.Metadata = map[string]string{"changed": fmt.Sprint(i)}
		require.NoError(t, r.Register(s, registry.TTL(time.Minute)))
		require.Equal(t, api.HealthPassing, other.state("lapsed"))
		found, err := r.GetService("lapsed")
		require.NoError(t, err)
		require.True(t, s.Equal(found[0]))
	}
	require.NoError(t, r.Deregister(s))
}

// testLargest: what pack takes, Consul takes; and what it does not is refused before anything is sent.
func testLargest(t *testing.T, server *servers.Server, _ foreign) {
	r := open(t, settings(server.Addr))
	fits := greeter("largest", "a")
	low, high := 0, 64<<10
	random := noise(high)
	for high-low > 1 {
		half := (low + high) / 2
		fits.Metadata = map[string]string{"noise": random[:half]}
		if _, _, err := pack(fits); err == nil {
			low = half
		} else {
			high = half
		}
	}
	t.Logf("%d bytes of incompressible metadata fit", low)
	fits.Metadata["noise"] = random[:low]
	require.NoError(t, r.Register(fits))
	found, err := r.GetService("largest")
	require.NoError(t, err)
	require.True(t, fits.Equal(found[0]))

	small := greeter("largest", "small")
	small.Nodes = append(small.Nodes, &registry.Node{ID: "large", Address: "x:1", Metadata: map[string]string{"noise": random[:high+200]}})
	err = r.Register(small)
	require.ErrorIs(t, err, registry.ErrInvalid)
	require.ErrorContains(t, err, fmt.Sprintf("Consul takes %d at most", maxPacked))
	require.Equal(t, []string{"a"}, ids(t, r, "largest"), "all or nothing")

	pairs := greeter("pairs", "a")
	pairs.Metadata = make(map[string]string)
	for i := range 200 {
		pairs.Metadata[fmt.Sprintf("key%03d", i)] = strings.Repeat("v", maxValue)
	}
	require.NoError(t, r.Register(pairs), "more pairs than Consul has")
	found, err = r.GetService("pairs")
	require.NoError(t, err)
	require.True(t, pairs.Equal(found[0]))
	require.NoError(t, r.Deregister(fits))
	require.NoError(t, r.Deregister(pairs))
}

func testManyServices(t *testing.T, server *servers.Server, _ foreign) {
	const many = 300
	writer := open(t, settings(server.Addr))
	name := func(i int) string { return fmt.Sprint("many-", i) }
	var work sync.WaitGroup
	for part := range 8 {
		work.Go(func() {
			for i := part; i < many; i += 8 {
				if err := writer.Register(greeter(name(i), fmt.Sprint("node-", i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	proxy, err := servers.NewProxy(server.Addr)
	require.NoError(t, err)
	defer proxy.Close()
	r := open(t, settings(proxy.Addr()))
	watchers := make([]registry.Watcher, 20)
	begun := time.Now()
	for i := range watchers {
		watchers[i], err = r.Watch()
		require.NoError(t, err)
	}
	t.Logf("%d watchers of %d services after %v", len(watchers), many, time.Since(begun))
	moved := greeter(name(7), "node-7")
	moved.Nodes[0].Address = "198.51.100.1:1"
	begun = time.Now()
	require.NoError(t, writer.Register(moved))
	for _, w := range watchers {
		require.True(t, moved.Equal(next(t, w, moved.Name, registry.Update)))
	}
	t.Logf("all were told %v after a change", time.Since(begun))
	require.LessOrEqual(t, proxy.Connections(), 4, "an agent takes 200 from all processes of a host")
	for i := range many {
		require.NoError(t, writer.Deregister(greeter(name(i), fmt.Sprint("node-", i))))
	}
}

// testBackwards: after its data was lost, Consul counts anew, and a poll for more than the old index waits in vain.
func testBackwards(t *testing.T, server *servers.Server, _ foreign) {
	r := open(t, settings(server.Addr))
	w, err := r.Watch()
	require.NoError(t, err)
	defer w.Stop()
	begun := time.Now()
	next, complete, err := r.step(1<<40, 500*time.Millisecond)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(begun), 400*time.Millisecond)
	require.True(t, complete)
	require.Less(t, next, uint64(1<<40))
	require.NotZero(t, next, "which would not wait")
}

// testHalfWritten: the check says something else than the node, as if they arrived one after the other.
func testHalfWritten(t *testing.T, server *servers.Server, other foreign) {
	r := open(t, settings(server.Addr))
	s := greeter("half", "a")
	reg, err := r.registration(s, 0)
	require.NoError(t, err)
	w, err := r.Watch()
	require.NoError(t, err)
	whole := reg.Checks[0].Notes
	reg.Checks[0].Notes = notes("something else", "1.2.3")
	require.NoError(t, other.Agent().ServiceRegister(reg.AgentServiceRegistration))
	other.becomes("half", api.HealthPassing)
	r.watching.Lock()
	_, complete, err := r.look()
	r.watching.Unlock()
	require.NoError(t, err)
	require.False(t, complete)
	reg.Checks[0].Notes = whole
	require.NoError(t, other.Agent().ServiceRegister(reg.AgentServiceRegistration))
	require.True(t, s.Equal(next(t, w, s.Name, registry.Create)))
	require.NoError(t, r.Deregister(s))
}

func testConsistency(t *testing.T, server *servers.Server, _ foreign) {
	for _, mode := range consistencies {
		c := settings(server.Addr)
		c.Consistency = mode
		r := open(t, c)
		w, err := r.Watch()
		require.NoError(t, err)
		s := greeter("consistency-"+mode, "a")
		require.NoError(t, r.Register(s))
		require.True(t, s.Equal(next(t, w, s.Name, registry.Create)))
		hasIDs(t, r, s.Name, "a")
		list, err := r.ListServices()
		require.NoError(t, err)
		require.Contains(t, list, &registry.Service{Name: s.Name})
		require.NoError(t, r.Deregister(s))
	}
}

func testEnvironment(t *testing.T, server *servers.Server, _ foreign) {
	t.Setenv("CONSUL_HTTP_ADDR", "192.0.2.1:1")
	t.Setenv("CONSUL_HTTP_SSL", "true")
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", "/nowhere")
	t.Setenv("CONSUL_NAMESPACE", "nowhere")
	t.Setenv("CONSUL_PARTITION", "nowhere")
	r := open(t, settings(server.Addr))
	require.NoError(t, r.Register(greeter("environment", "a")))
	require.Equal(t, []string{"a"}, ids(t, r, "environment"))
	require.NoError(t, r.Deregister(greeter("environment", "a")))
}

// testEnterprise: what the server does not have is an error of the server, which names it.
func testEnterprise(t *testing.T, server *servers.Server, _ foreign) {
	for option, change := range map[string]func(*Config){
		"Namespaces":   func(c *Config) { c.Namespace = "team" },
		"Partitions":   func(c *Config) { c.Partition = "part" },
		"dc-elsewhere": func(c *Config) { c.Datacenter = "dc-elsewhere" },
	} {
		c := settings(server.Addr)
		change(&c)
		r := open(t, c)
		_, err := r.GetService("any")
		require.ErrorContains(t, err, "consul "+server.Addr+" refused: ")
		if option != "dc-elsewhere" {
			require.ErrorContains(t, err, option)
			require.ErrorContains(t, r.Register(greeter("any", "a")), option)
		}
		_, err = r.Watch()
		require.Error(t, err)
	}
}

func testAgentsInOrder(t *testing.T, server *servers.Server, _ foreign) {
	proxies := make([]*servers.Proxy, 3)
	var addrs []string
	for i := range proxies {
		var err error
		proxies[i], err = servers.NewProxy(server.Addr)
		require.NoError(t, err)
		defer proxies[i].Close()
		addrs = append(addrs, proxies[i].Addr())
	}
	c := settings(addrs...)
	c.Timeout = 3 * time.Second
	r := open(t, c)
	s := greeter("in-order", "a")
	require.NoError(t, r.Register(s))
	require.Equal(t, addrs[0], r.agents.pick().name)
	require.Zero(t, proxies[1].Connections())

	proxies[0].Cut()
	require.Equal(t, []string{"a"}, ids(t, r, "in-order"))
	require.Equal(t, addrs[1], r.agents.pick().name)

	proxies[1].Blackhole()
	begun := time.Now()
	require.Equal(t, []string{"a"}, ids(t, r, "in-order"))
	require.Less(t, time.Since(begun), c.Timeout)
	require.Equal(t, addrs[2], r.agents.pick().name)

	proxies[2].Cut()
	begun = time.Now()
	_, err := r.GetService("in-order")
	require.Less(t, time.Since(begun), c.Timeout+time.Second)
	for _, addr := range addrs {
		require.ErrorContains(t, err, "consul "+addr+": ")
	}
	require.NotErrorIs(t, err, registry.ErrNotFound)

	proxies[0].Heal()
	require.Equal(t, []string{"a"}, ids(t, r, "in-order"), "round it goes")
	require.Equal(t, addrs[0], r.agents.pick().name)
	require.NoError(t, r.Deregister(s))
}

// testSilentAgent: a long poll is silent for half a minute, be the agent dead or not. Whatever else is asked tells.
func testSilentAgent(t *testing.T, server *servers.Server, _ foreign) {
	silent, err := servers.NewProxy(server.Addr)
	require.NoError(t, err)
	defer silent.Close()
	r := open(t, settings(silent.Addr(), server.Addr))
	w, err := r.Watch()
	require.NoError(t, err)
	begun := time.Now()
	silent.Blackhole()
	writer := open(t, settings(server.Addr))
	s := greeter("unheard", "a")
	require.NoError(t, writer.Register(s))
	require.Equal(t, []string{"a"}, ids(t, r, "unheard")) // as a refresh would
	require.True(t, s.Equal(next(t, w, s.Name, registry.Create)))
	require.Less(t, time.Since(begun), longPoll/2)
	require.NoError(t, writer.Deregister(s))
}

// testDeregisterInTime: however many nodes there are, and agents that are silent, and if one of them is well.
func testDeregisterInTime(t *testing.T, server *servers.Server, _ foreign) {
	addrs := []string{server.Addr}
	proxies := make([]*servers.Proxy, 3)
	for i := range proxies {
		var err error
		proxies[i], err = servers.NewProxy(server.Addr)
		require.NoError(t, err)
		defer proxies[i].Close()
		addrs = append(addrs, proxies[i].Addr())
	}
	r := open(t, settings(addrs...))
	s := greeter("in-time")
	for i := range 2 * maxFetches { // more than are asked for at once
		s.Nodes = append(s.Nodes, &registry.Node{ID: fmt.Sprint(i), Address: "192.0.2.1:4100"})
	}
	for i := range addrs {
		r.agents.prefer(i)
		require.NoError(t, r.Register(s))
	}
	for _, p := range proxies {
		p.Blackhole()
	}
	begun := time.Now()
	err := r.Deregister(s)
	require.Less(t, time.Since(begun), 2*r.config.Timeout)
	for _, addr := range addrs[1:] {
		require.ErrorContains(t, err, "consul "+addr+": no answer within 2s")
	}
	hasIDs(t, open(t, settings(server.Addr)), s.Name) // the agent that is well has forgotten all of them
	for _, p := range proxies {
		p.Heal()
	}
	eventually(t, func() bool { return r.Deregister(s) == nil })
	require.Empty(t, r.own)
}

// testNeverReached: an agent that was not there when the node was registered does not have it.
func testNeverReached(t *testing.T, server *servers.Server, _ foreign) {
	r := open(t, settings("127.0.0.1:1", server.Addr))
	s := greeter("never-reached", "a")
	require.NoError(t, r.Register(s))
	require.NoError(t, r.Deregister(s))
	hasIDs(t, r, s.Name)
}

// testCut: what happened while the connections were refused is told afterwards, without a new watch.
func testCut(t *testing.T, server *servers.Server, _ foreign) {
	proxy, err := servers.NewProxy(server.Addr)
	require.NoError(t, err)
	defer proxy.Close()
	writer, r := open(t, settings(server.Addr)), open(t, settings(proxy.Addr()))
	stays, goes, comes := greeter("cut", "stays"), greeter("cut", "goes"), greeter("cut", "comes")
	require.NoError(t, writer.Register(stays))
	require.NoError(t, writer.Register(goes))
	w, err := r.Watch()
	require.NoError(t, err)
	for range 2 {
		proxy.Drop() // and at once on again
		require.NoError(t, writer.Register(comes))
		require.True(t, comes.Equal(next(t, w, "cut", registry.Create)))
		require.NoError(t, writer.Deregister(comes))
		next(t, w, "cut", registry.Delete)
	}
	proxy.Cut()
	require.NoError(t, writer.Deregister(goes))
	require.NoError(t, writer.Register(comes))
	hasIDs(t, writer, "cut", "comes", "stays")
	proxy.Heal()
	require.Equal(t, "goes", next(t, w, "cut", registry.Delete).Nodes[0].ID)
	require.True(t, comes.Equal(next(t, w, "cut", registry.Create)))
	require.NoError(t, writer.Deregister(greeter("cut", "stays", "comes")))
}

// testDirect: the direct broker registers its processes under a name and at an address of its own.
func testDirect(t *testing.T, server *servers.Server, other foreign) {
	c := settings(server.Addr)
	c.Check = "tcp"
	r := open(t, c)
	s := &registry.Service{Name: "_direct"}
	for i := range 3 { // in one process, with the IDs of other services
		s.Nodes = []*registry.Node{{ID: fmt.Sprint("node-", i), Address: "127.0.0.1:1", Metadata: map[string]string{"publisher": "true"}}}
		require.NoError(t, r.Register(s, registry.TTL(time.Minute)))
		require.NoError(t, r.Register(greeter("_beside", fmt.Sprint("node-", i)), registry.TTL(time.Minute)))
	}
	require.Equal(t, []string{"node-0", "node-1", "node-2"}, ids(t, r, "_direct"))
	entries, _, err := other.Health().Service("_direct", "", true, nil)
	require.NoError(t, err)
	require.Len(t, entries, 3)
	require.NoError(t, r.Deregister(greeter("_direct", "node-1")))
	hasIDs(t, r, "_direct", "node-0", "node-2")
	require.Equal(t, []string{"node-0", "node-1", "node-2"}, ids(t, r, "_beside"))
	require.NoError(t, r.Deregister(greeter("_direct", "node-0", "node-2")))
	require.NoError(t, r.Deregister(greeter("_beside", "node-0", "node-1", "node-2")))
}

// TestAgentDies: what an agent had is not alive without it, and is registered with the next one.
func TestAgentDies(t *testing.T) {
	server, agent := servers.ConsulPair(t)
	neighbour(t, server)
	observer := open(t, settings(server.Addr))
	alone := open(t, settings(agent.Addr))
	both := open(t, settings(agent.Addr, server.Addr))
	require.NoError(t, alone.Register(greeter("alone", "a")))
	s := greeter("both", "b")
	k, err := registry.Keep(both, s, 3*time.Second, time.Second, nil)
	require.NoError(t, err)
	hasIDs(t, observer, "alone", "a")
	hasIDs(t, observer, "both", "b")
	require.Equal(t, agent.Addr, both.agents.pick().name)

	agent.Kill(t)
	hasIDs(t, observer, "alone") // Consul itself has noticed
	hasIDs(t, observer, "both", "b")
	eventually(t, func() bool { return both.agents.pick().name == server.Addr && k.Registered() })
	require.NoError(t, k.Err())

	agent.Start(t) // it still has the node, as it was
	hasIDs(t, observer, "alone", "a")
	require.Equal(t, []string{"b"}, ids(t, observer, "both"))
	moved := greeter("both", "b")
	moved.Nodes[0].Address = "198.51.100.1:1"
	require.NoError(t, both.Register(moved, registry.TTL(time.Minute)))
	found, err := observer.GetService("both")
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.True(t, moved.Equal(found[0]), "the one that changed last counts")
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	require.NoError(t, k.Stop(ctx))
	hasIDs(t, observer, "both") // it was forgotten by both
	require.Empty(t, newForeign(t, agent.Addr).state("both"))
}

// TestZombie: a node that moved to another agent is gone for good only when the first one has forgotten it, too.
func TestZombie(t *testing.T) {
	server, agent := servers.ConsulPair(t)
	neighbour(t, server)
	observer := open(t, settings(server.Addr))
	proxy, err := servers.NewProxy(agent.Addr)
	require.NoError(t, err)
	defer proxy.Close()
	r := open(t, settings(proxy.Addr(), server.Addr))
	s := greeter("zombie", "a", "b") // without a TTL
	require.NoError(t, r.Register(s))
	proxy.Cut()
	require.NoError(t, r.Register(s))
	require.Equal(t, server.Addr, r.agents.pick().name)

	err = r.Deregister(s)
	require.ErrorContains(t, err, "consul "+proxy.Addr())
	require.ErrorContains(t, err, "may still have the node")
	require.NotContains(t, err.Error(), server.Addr)
	require.Equal(t, []string{"a", "b"}, ids(t, observer, "zombie")) // the cut agent tells of them still
	proxy.Heal()
	require.NoError(t, r.Deregister(s))
	hasIDs(t, observer, "zombie")
	require.Empty(t, r.own)
}

// TestServersDie: the agent answers, but has nobody to ask.
func TestServersDie(t *testing.T) {
	server, agent := servers.ConsulPair(t)
	neighbour(t, agent)
	r := open(t, settings(agent.Addr))
	w, err := r.Watch()
	require.NoError(t, err)
	s := greeter("orphan", "a")
	k, err := registry.Keep(r, s, time.Minute, 500*time.Millisecond, nil)
	require.NoError(t, err)
	require.True(t, s.Equal(next(t, w, "orphan", registry.Create)))

	server.Kill(t)
	var refused error
	eventually(t, func() bool { _, refused = r.GetService("orphan"); return refused != nil })
	require.ErrorContains(t, refused, "consul "+agent.Addr)
	require.NotErrorIs(t, refused, registry.ErrNotFound)
	require.True(t, k.Registered(), "the agent has it")
	late, err := registry.Keep(r, greeter("orphan", "late"), time.Minute, 500*time.Millisecond, nil)
	require.NoError(t, err, "the agent will tell")

	server.Start(t)
	begun := time.Now()
	eventually(t, func() bool {
		_, err := r.GetService("orphan")
		return err == nil || errors.Is(err, registry.ErrNotFound)
	})
	// A single server forgets the hosts that are not yet back, which their agents do not know.
	hasIDs(t, r, "orphan", "a", "late")
	eventually(t, func() bool { return k.Registered() && late.Registered() })
	t.Logf("all was there %v after the servers were back", time.Since(begun))
	for _, k := range []*registry.Keeper{k, late} {
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		require.NoError(t, k.Stop(ctx))
	}
}
