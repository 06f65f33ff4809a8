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
	"strings"
	"testing"
)

// ConsulVersion is the one that `make servers` builds.
const ConsulVersion = "1.20.1"

// Consul starts a Consul server of its own, one agent. config is added to its configuration, as JSON or HCL.
func Consul(t testing.TB, config ...string) *Server {
	t.Helper()
	binary := need(t, "Consul", filepath.Join(Dir(), "consul", "consul"))
	s := newServer(t)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	s.listen(t, addr)
	extra := filepath.Join(t.TempDir(), "consul.hcl")
	if err := os.WriteFile(extra, []byte(strings.Join(config, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	ports := fmt.Sprintf("ports { http = %s, server = %d, serf_lan = %d, serf_wan = -1, dns = -1, grpc = -1, grpc_tls = -1 }",
		strings.TrimPrefix(addr, "127.0.0.1:"), freePort(t), freePort(t))
	s.command = func() *exec.Cmd {
		return exec.Command(binary, "agent", "-server", "-bootstrap-expect=1", "-node=test", "-bind=127.0.0.1", "-client=127.0.0.1",
			"-data-dir="+s.Dir, "-log-level=warn", "-hcl", ports, "-hcl", "performance { raft_multiplier = 1 }",
			"-hcl", "disable_update_check = true", "-config-file="+extra)
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
		if len(leader) <= len(`""`) {
			return errors.New("it has no leader yet")
		}
		return nil
	}
	s.begin(t)
	return s
}
