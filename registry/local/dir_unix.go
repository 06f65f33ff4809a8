//go:build unix

package local

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

func checkOwner(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("registry directory %s: its owner cannot be told", path)
	}
	if uid := os.Geteuid(); int(st.Uid) != uid {
		return fmt.Errorf("registry directory %s belongs to another user (uid %d, this process has %d): choose another directory with --registry-dir", path, st.Uid, uid)
	}
	return nil
}
