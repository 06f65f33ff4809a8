package servers

import (
	"os"
	"syscall"
	"testing"
)

// memoryDir is a folder in memory, which outlives a killed server; "" where there is little room.
func memoryDir(t testing.TB) string {
	const shared, room = "/dev/shm", 1 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(shared, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < room {
		return ""
	}
	dir, err := os.MkdirTemp(shared, "micro-consul-")
	if err != nil {
		return ""
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
