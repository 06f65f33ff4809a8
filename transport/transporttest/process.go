package transporttest

import (
	"os/exec"
	"testing"

	"github.com/plugmicro/micro/internal/suite"
)

// Start is for Harness.Spawn: it starts cmd, which is to write the address of its listener in a line, and to call Echo.
// The process ends with the test. The test binary itself can be the program, told by its environment:
//
//	func init() {
//		if server := os.Getenv("MY_TEST_ECHO"); server != "" {
//			l := listen(server)
//			fmt.Println(l.Addr())
//			transporttest.Echo(l)
//			os.Exit(1)
//		}
//	}
func Start(t testing.TB, cmd *exec.Cmd) Process {
	t.Helper()
	addr, p := suite.Start(t, cmd)
	return Process{Addr: addr, Kill: p.Kill, Stop: p.Stop, Continue: p.Continue}
}
