//go:build unix

package servers

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// ConsulVersion is the one that `make servers` builds.
const ConsulVersion = "1.20.1"

// Consul starts a Consul server of its own, one agent. config is added to its configuration, as JSON or HCL.
func Consul(t testing.TB, config ...string) *Server {
	t.Helper()
	return consulAgent(t, freePort(t), append(config, `server = true`, `bootstrap_expect = 1`, `performance { raft_multiplier = 1 }`))
}

// ConsulPair starts a Consul server, and an agent that is none, on a host of its own as far as Consul knows. The server
// notices within a second or two that the agent is gone.
func ConsulPair(t testing.TB) (server, agent *Server) {
	t.Helper()
	const soon = `gossip_lan { gossip_interval = "50ms", probe_interval = "200ms", probe_timeout = "100ms", suspicion_mult = 2 }`
	one, two := freePort(t), freePort(t)
	join := func(port int) string { // each the other, so that they meet again whichever was gone
		return fmt.Sprintf("retry_join = [\"127.0.0.1:%d\"]\nretry_interval = \"200ms\"", port)
	}
	server = consulAgent(t, one, []string{`server = true`, `bootstrap_expect = 1`, `performance { raft_multiplier = 1 }`, join(two), soon})
	agent = consulAgent(t, two, []string{join(one), soon})
	return server, agent
}

// consulAgent starts one; others find it on the port of gossip.
func consulAgent(t testing.TB, gossip int, config []string) *Server {
	t.Helper()
	binary := need(t, "Consul", filepath.Join(Dir(), "consul", "consul"))
	s := newServer(t)
	if dir := memoryDir(t); dir != "" {
		s.Dir = dir // Consul waits for the disk at each registration
	}
	port := freePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	s.listen(t, addr)
	own := fmt.Sprintf(`
		node_name = "test-%d"
		ports { http = %d, server = %d, serf_lan = %d, serf_wan = -1, dns = -1, grpc = -1, grpc_tls = -1 }
		disable_update_check = true`, port, port, freePort(t), gossip)
	files := t.TempDir() // one each, or blocks that are in several would not be merged
	for i, text := range append(config, own) {
		if err := os.WriteFile(filepath.Join(files, fmt.Sprintf("%d.hcl", i)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.command = func() *exec.Cmd {
		return exec.Command(binary, "agent", "-bind=127.0.0.1", "-client=127.0.0.1", "-data-dir="+s.Dir, "-log-level=warn", "-config-dir="+files)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no goroutine stays
	s.ready = func() error {
		resp, err := client.Get("http://" + addr + "/v1/status/leader")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		leader, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK || len(leader) <= len(`""`) {
			return errors.New("it has no leader yet")
		}
		return nil
	}
	s.begin(t)
	return s
}
