package servers

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// A server may be several processes, a shell script among them: they are one group. It also ends with a test that is
// killed.
func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// isStopped says whether no thread of a process runs any more: a signal that was sent takes its time.
func isStopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, file := range threads {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, state, _ := bytes.Cut(stat, []byte(") ")) // after the name, which is in brackets
		if !bytes.HasPrefix(state, []byte("T")) {
			return false
		}
	}
	return true
}
