//go:build unix && !linux

package servers

import "testing"

// memoryDir is a folder in memory; there is none.
func memoryDir(testing.TB) string { return "" }
