package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/local"
)

// registry is the machine's, for services without a process.
func (m *machine) registry() *local.Registry {
	r, err := local.Open(m.dir, nil)
	require.NoError(m.t, err)
	m.t.Cleanup(func() { r.Close() })
	return r
}

func account(version, id string) *registry.Service {
	return &registry.Service{Name: "accounts", Version: version,
		Endpoints: []*registry.Endpoint{{
			Name:     "Accounts.Get",
			Request:  &registry.Value{Type: "GetRequest", Values: []*registry.Value{{Name: "id", Type: "int64"}}},
			Response: &registry.Value{Type: "Account", Values: []*registry.Value{{Name: "owner", Type: "Person", Values: []*registry.Value{{Name: "name", Type: "string"}}}}},
			Metadata: map[string]string{"idempotent": "true"},
		}},
		Nodes: []*registry.Node{{ID: id, Address: "10.0.0.1:4100", Metadata: map[string]string{"zone": "eu", "disk": "ssd"}}}}
}

func TestServices(t *testing.T) {
	m := newMachine(t)
	r := m.micro("services")
	require.Equal(t, result{"", "micro: no service is registered in registry local\n", exitOK}, r)
	require.Equal(t, result{"[]\n", "", exitOK}, m.micro("services", "-o", "json"))

	reg := m.registry()
	for _, s := range []*registry.Service{account("2.0.0", "accounts-b"), account("1.0.0", "accounts-a"),
		{Name: "zebra", Nodes: []*registry.Node{{ID: "z", Address: "a:1"}}},
		{Name: "_topic", Nodes: []*registry.Node{{ID: "i", Address: "a:1"}}}} {
		require.NoError(t, reg.Register(s))
	}
	require.Equal(t, result{"accounts\nzebra\n", "", exitOK}, m.micro("services"))
	require.Equal(t, result{`[{"name":"accounts"},{"name":"zebra"}]` + "\n", "", exitOK}, m.micro("services", "--output=json"))

	require.Equal(t, result{`accounts 1.0.0
  nodes
    accounts-a  10.0.0.1:4100  disk=ssd zone=eu
  endpoints
    Accounts.Get, idempotent
      request   GetRequest
        id      int64
      response  Account
        owner   Person
          name  string

accounts 2.0.0
  nodes
    accounts-b  10.0.0.1:4100  disk=ssd zone=eu
  endpoints
    Accounts.Get, idempotent
      request   GetRequest
        id      int64
      response  Account
        owner   Person
          name  string
`, "", exitOK}, m.micro("services", "accounts"))
	require.Equal(t, "zebra\n  nodes\n    z  a:1\n", m.micro("services", "zebra").out)
	require.Contains(t, m.micro("services", "_topic").out, "_topic\n", "who asks for an internal one by name gets it")

	r = m.micro("services", "accounts", "-o", "json")
	var versions []*registry.Service
	require.NoError(t, json.Unmarshal([]byte(r.out), &versions))
	require.Len(t, versions, 2)
	require.True(t, account("1.0.0", "accounts-a").Equal(versions[0]))

	r = m.micro("services", "acounts")
	require.Equal(t, result{"", "micro: no service \"acounts\" in registry local\nhint: did you mean accounts?\n", exitNoAnswer}, r)
	require.Equal(t, exitUsage, m.micro("services", "a", "b").code)
}

func TestServicesStreams(t *testing.T) {
	m := newMachine(t)
	m.greeter()
	out := m.micro("services", "greeter").out
	for _, line := range []string{"Greeter.Hello, idempotent", "Numbers.Count, streams responses", "Numbers.Double, streams both ways", "Numbers.Sum, streams requests"} {
		require.Contains(t, out, "    "+line+"\n")
	}
	require.Regexp(t, `(?m)^        tags +\[\]string$`, out)
}

func TestWatch(t *testing.T) {
	m := newMachine(t)
	reg := m.registry()
	require.NoError(t, reg.Register(account("1.0.0", "accounts-a")))
	all, one := m.start("micro", "services", "--watch"), m.start("micro", "services", "--watch", "accounts", "-o", "json")

	node := "  accounts  1.0.0  accounts-a  10.0.0.1:4100  "
	require.Equal(t, "create"+node+"disk=ssd zone=eu", all.out.next(t), "first what is there")
	require.Equal(t, "create", oneResult(t, one).Action)
	for _, s := range []*registry.Service{{Name: "_topic", Nodes: []*registry.Node{{ID: "i", Address: "a:1"}}}, {Name: "zebra", Nodes: []*registry.Node{{ID: "z", Address: "a:1"}}}} {
		require.NoError(t, reg.Register(s))
	}
	require.Equal(t, "create  zebra  z  a:1", all.out.next(t), "internal ones are not told")

	changed := account("1.0.0", "accounts-a")
	changed.Nodes[0].Metadata = nil
	require.NoError(t, reg.Register(changed))
	require.Equal(t, strings.TrimSpace("update"+node), all.out.next(t))
	update := oneResult(t, one)
	require.Equal(t, "update", update.Action)
	require.True(t, changed.Equal(update.Service))

	require.NoError(t, reg.Deregister(changed))
	require.Equal(t, strings.TrimSpace("delete"+node), all.out.next(t))
	require.Equal(t, "delete", oneResult(t, one).Action)

	for _, p := range []*process{all, one} {
		require.Equal(t, 130, p.interrupt())
		require.Empty(t, p.err.text())
	}
}

func oneResult(t *testing.T, p *process) *registry.Result {
	t.Helper()
	var r registry.Result
	require.NoError(t, json.Unmarshal([]byte(p.out.next(t)), &r))
	require.Equal(t, "accounts", r.Service.Name)
	return &r
}

func TestWatchProcesses(t *testing.T) {
	m := newMachine(t)
	watch := m.start("micro", "services", "-w", "greeter")
	g := m.greeter()
	line := watch.out.next(t)
	require.Contains(t, line, "create  greeter  1.0.0  greeter-")
	require.Contains(t, line, g.address())
	require.NoError(t, g.cmd.Process.Kill())
	require.Contains(t, watch.out.next(t), "delete  greeter  1.0.0  greeter-")
}

// TestVersionsDiffer calls an endpoint where only the newer version has it.
func TestVersionsDiffer(t *testing.T) {
	m := newMachine(t)
	m.greeter()
	require.NoError(t, m.registry().Register(&registry.Service{Name: "greeter", Version: "0.9.0",
		Endpoints: []*registry.Endpoint{{Name: "Greeter.Bye"}},
		Nodes:     []*registry.Node{{ID: "old-1", Address: "127.0.0.1:1"}, {ID: "old-2", Address: "127.0.0.1:1"}}}))
	for range 5 {
		require.Equal(t, result{"{\"message\":\"Hello, Ada\"}\n", "", exitOK}, m.micro("call", "greeter", "Greeter.Hello", ada))
	}
	require.Contains(t, m.micro("services", "greeter").out, "greeter 0.9.0\n")
}

// TestRegistryFails has a directory that cannot be trusted.
func TestRegistryFails(t *testing.T) {
	m := newMachine(t)
	require.NoError(t, os.Mkdir(m.dir, 0o700))
	require.NoError(t, os.Chmod(m.dir, 0o777))
	for _, args := range [][]string{{"services"}, {"services", "-w"}, {"services", "greeter"}, {"call", "greeter", "Greeter.Hello"}} {
		r := m.micro(args...)
		require.Equal(t, exitFailed, r.code, "%q", args)
		require.Equal(t, 1, strings.Count(r.err, "\n"), "%q: one line: %s", args, r.err)
		require.Contains(t, r.err, "chmod 700 "+filepath.Clean(m.dir))
	}
}
