//go:build unix

package servers

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/plugmicro/micro/plugin"
)

// PebbleServer is an ACME server. To it every name is this machine.
type PebbleServer struct {
	*Server
	Directory  string // the URL that clients begin with
	Management string // the URL under which it tells about itself: /roots/0 is the authority that signs
	HTTPAddr   string // where it asks for the challenge http-01
	TLSAddr    string // where it asks for the challenge tls-alpn-01
}

// Pebble starts an ACME server of its own, and a name server for it. own is the certificate that it shows to its clients.
func Pebble(t testing.TB, own plugin.TLS) *PebbleServer {
	t.Helper()
	binary := need(t, "Pebble", filepath.Join(Dir(), "pebble", "pebble"))
	local := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }
	names, namesReady := local(), local()
	dns := newServer(t)
	dns.command = func() *exec.Cmd {
		return exec.Command(binary+"-challtestsrv", "-dnsserver", names, "-management", namesReady,
			"-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	}
	dns.ready = accepts(namesReady)
	dns.begin(t)

	s := &PebbleServer{Server: newServer(t)}
	s.listen(t, local())
	httpPort, tlsPort, management := freePort(t), freePort(t), local()
	s.Directory = "https://" + s.Proxy.Addr() + "/dir"
	s.Management = "https://" + management
	s.HTTPAddr, s.TLSAddr = fmt.Sprintf("127.0.0.1:%d", httpPort), fmt.Sprintf("127.0.0.1:%d", tlsPort)
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": s.Addr, "managementListenAddress": management, "certificate": own.Cert, "privateKey": own.Key,
		"httpPort": httpPort, "tlsPort": tlsPort, "keyAlgorithm": "ecdsa",
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Dir, "config.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	s.command = func() *exec.Cmd {
		cmd := exec.Command(binary, "-config", file, "-dnsserver", names)
		cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1") // it asks for challenges at once, not within 15 s
		return cmd
	}
	s.ready = accepts(s.Addr)
	s.begin(t)
	return s
}

// accepts says whether something listens at addr.
func accepts(addr string) func() error {
	return func() error {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
}
