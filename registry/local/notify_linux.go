package local

import (
	"os"

	"golang.org/x/sys/unix"
)

// platform: the kernel closes the files of a dead process, and inotify tells of that, which fsnotify does not pass on.
var platform = notifier{start: inotify, deaths: true}

func inotify(dir string, changed chan<- struct{}) (func(), error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	const events = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, events); err != nil {
		_ = f.Close()
		return nil, &os.PathError{Op: "inotify_add_watch", Path: dir, Err: err}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
		for {
			if _, err := f.Read(buf); err != nil {
				return
			}
			signal(changed)
		}
	}()
	return func() { _ = f.Close(); <-ended }, nil
}
