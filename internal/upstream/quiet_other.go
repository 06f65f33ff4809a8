//go:build !unix

package upstream

import "net"

// peeker exists where a connection can be asked whether something waits to be read. Where it cannot, none is used twice.
type peeker struct{}

func (*peeker) init(*net.TCPConn) {}

func (*peeker) isQuiet() bool { return false }
