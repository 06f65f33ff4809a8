//go:build unix

package tcp

import (
	"net"
	"syscall"
)

// tryWriter writes what the kernel takes at once. Not for concurrent use.
type tryWriter struct {
	raw syscall.RawConn
	fn  func(fd uintptr) bool
	buf []byte
	n   int
	err error

	peekFn func(fd uintptr)
	peeked [1]byte
	some   bool
}

func newTryWriter(tc *net.TCPConn) *tryWriter {
	raw, err := tc.SyscallConn()
	if err != nil {
		return nil
	}
	t := &tryWriter{raw: raw}
	t.fn, t.peekFn = t.attempt, t.peek
	return t
}

// write returns how much of buf the kernel took, which may be nothing.
func (t *tryWriter) write(buf []byte) (int, error) {
	t.buf, t.n, t.err = buf, 0, nil
	err := t.raw.Write(t.fn)
	t.buf = nil
	if err != nil {
		return 0, err
	}
	return t.n, t.err
}

func (t *tryWriter) attempt(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), t.buf)
		switch err {
		case nil:
			t.n = n
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			t.err = err
		}
		return true
	}
}

// readable says whether there is something to read, which may be an error.
func (t *tryWriter) readable() bool {
	return t.raw.Control(t.peekFn) != nil || t.some
}

func (t *tryWriter) peek(fd uintptr) {
	for {
		_, _, err := syscall.Recvfrom(int(fd), t.peeked[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			t.some = err != syscall.EAGAIN
			return
		}
	}
}
