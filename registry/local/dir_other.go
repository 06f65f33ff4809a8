//go:build !unix

package local

import (
	"errors"
	"io/fs"
)

func checkOwner(string, fs.FileInfo) error {
	return errors.New("the local registry needs a Unix system: choose another one with --registry, for example mdns or memory")
}
