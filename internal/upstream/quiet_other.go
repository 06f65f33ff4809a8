//go:build !unix

package upstream

import "net"

// listener exists where a connection can be asked whether something waits to be read. Where it cannot, none is used twice.
type listener struct{}

func (*listener) init(*net.TCPConn) {}

func (*listener) isQuiet() bool { return false }
