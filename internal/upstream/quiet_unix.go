//go:build unix

package upstream

import (
	"net"
	"syscall"
)

// listener looks whether something waits to be read, without waiting for it. Not for concurrent use.
type listener struct {
	raw    syscall.RawConn
	peekFn func(fd uintptr)
	byte   [1]byte
	quiet  bool
}

func (l *listener) init(tc *net.TCPConn) {
	if raw, err := tc.SyscallConn(); err == nil {
		l.raw, l.peekFn = raw, l.peek
	}
}

// isQuiet is false if something waits, be it the end or an error.
func (l *listener) isQuiet() bool {
	return l.raw != nil && l.raw.Control(l.peekFn) == nil && l.quiet
}

func (l *listener) peek(fd uintptr) {
	for {
		_, _, err := syscall.Recvfrom(int(fd), l.byte[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			l.quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
			return
		}
	}
}
