//go:build !unix

package tcp

import "net"

// tryWriter exists where a write can be tried without waiting.
type tryWriter struct{}

func newTryWriter(*net.TCPConn) *tryWriter { return nil }

func (*tryWriter) write([]byte) (int, error) { panic("unreachable") }

func (*tryWriter) readable() bool { panic("unreachable") }
