//go:build unix

package upstream

import (
	"net"
	"syscall"
)

// peeker looks whether something waits to be read, without waiting for it. Not for concurrent use.
type peeker struct {
	raw    syscall.RawConn
	peekFn func(fd uintptr)
	one    [1]byte
	quiet  bool
}

func (p *peeker) init(tc *net.TCPConn) {
	if raw, err := tc.SyscallConn(); err == nil {
		p.raw, p.peekFn = raw, p.peek
	}
}

// isQuiet is false if something waits, be it the end or an error.
func (p *peeker) isQuiet() bool {
	return p.raw != nil && p.raw.Control(p.peekFn) == nil && p.quiet
}

func (p *peeker) peek(fd uintptr) {
	for {
		_, _, err := syscall.Recvfrom(int(fd), p.one[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			p.quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
			return
		}
	}
}
