//go:build !linux

package tcp

import (
	"syscall"
	"time"
)

// setUserTimeout needs Linux; elsewhere the kernel's own limit for unanswered data holds.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }
