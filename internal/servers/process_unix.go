//go:build unix && !linux

package servers

import "syscall"

// A server may be several processes, a shell script among them: they are one group.
func processGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// isStopped is not known here.
func isStopped(int) bool { return true }
