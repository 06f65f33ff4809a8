//go:build unix

package tcp

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport/transporttest"
)

// echoProcess in the environment makes the test binary a service that sends back what it receives.
const echoProcess = "MICRO_TCP_TEST_ECHO"

func init() {
	spawn = spawnProcess
	if os.Getenv(echoProcess) == "" {
		return
	}
	tr, err := New(new(plugin.Env), Config{})
	if err != nil {
		panic(err)
	}
	l, err := tr.Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	transporttest.Echo(l)
	os.Exit(1)
}

func spawnProcess(t testing.TB) transporttest.Process {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), echoProcess+"=yes")
	return transporttest.Start(t, cmd)
}
