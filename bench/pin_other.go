//go:build !linux

package main

import (
	"errors"
	"os/exec"
)

func startOn([]int, *exec.Cmd) error { return errors.ErrUnsupported }

func processors() ([]int, error) { return nil, errors.ErrUnsupported }
