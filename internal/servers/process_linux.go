package servers

import "syscall"

// A server may be several processes, a shell script among them: they are one group. It also ends with a test that is
// killed.
func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
