//go:build !linux

package local

var platform = notifier{start: fsNotify}
