package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
)

const loopback = "127.0.0.1:0"

// listen serves each connection in a goroutine of its own.
func listen(serve func(net.Conn)) (addr string, err error) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return "", err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				log.Print(err)
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String(), nil
}

// Ping-pong is the least that a program can do: one goroutine on each side that writes and reads, no frames.

func servePingPong() (string, error) {
	return listen(func(c net.Conn) {
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

func dialPingPong(addr string) (func(int) echoFunc, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return func(size int) echoFunc {
		buf := make([]byte, size)
		return func() error {
			if _, err := c.Write(buf); err != nil {
				return err
			}
			_, err := io.ReadFull(c, buf)
			return err
		}
	}, nil
}

// Bare framed is a multiplexed echo without anything else: no limits, no deadlines, no cancellation, no errors, no
// handlers. A frame is its length and the number of its caller, four bytes each, and the body. A connection has one
// goroutine that reads and one that writes; the latter flushes when its queue is empty.

const bareHeader = 8

type bareConn struct {
	nc    net.Conn
	r     *bufio.Reader
	queue chan *[]byte
	yield bool          // let others run before flushing: they may have frames to add
	sent  func(*[]byte) // takes back a frame that was written; may be nil
}

func newBareConn(nc net.Conn, yield bool, sent func(*[]byte)) *bareConn {
	c := &bareConn{nc: nc, r: bufio.NewReaderSize(nc, 64<<10), queue: make(chan *[]byte, 2*maxCallers), yield: yield, sent: sent}
	go c.write()
	return c
}

func (c *bareConn) write() {
	w := bufio.NewWriterSize(c.nc, 64<<10)
	for frame := range c.queue {
		w.Write(*frame) // an error stays until Flush
		if c.sent != nil {
			c.sent(frame)
		}
		if len(c.queue) == 0 && c.yield {
			runtime.Gosched()
		}
		if len(c.queue) > 0 {
			continue
		}
		if err := w.Flush(); err != nil {
			c.nc.Close()
			return
		}
	}
}

// header reads the next frame up to its body.
func (c *bareConn) header() (size, id int, err error) {
	h, err := c.r.Peek(bareHeader)
	if err != nil {
		return 0, 0, err
	}
	size, id = int(binary.BigEndian.Uint32(h)), int(binary.BigEndian.Uint32(h[4:]))
	c.r.Discard(bareHeader)
	return size, id, nil
}

func putBareHeader(frame []byte, id int) {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-bareHeader))
	binary.BigEndian.PutUint32(frame[4:], uint32(id))
}

func serveBare(yield bool) func() (string, error) {
	return func() (string, error) {
		return listen(func(nc net.Conn) { echoBare(nc, yield) })
	}
}

func echoBare(nc net.Conn, yield bool) {
	var frames sync.Pool
	c := newBareConn(nc, yield, func(frame *[]byte) { frames.Put(frame) })
	defer close(c.queue)
	for {
		size, id, err := c.header()
		if err != nil {
			return
		}
		frame, _ := frames.Get().(*[]byte)
		if frame == nil || len(*frame) != bareHeader+size {
			made := make([]byte, bareHeader+size)
			frame = &made
		}
		if _, err := io.ReadFull(c.r, (*frame)[bareHeader:]); err != nil {
			return
		}
		putBareHeader(*frame, id)
		c.queue <- frame
	}
}

// bareCaller waits for one answer at a time.
type bareCaller struct {
	body []byte
	done chan error
}

func dialBare(yield bool) func(string) (func(int) echoFunc, error) {
	return func(addr string) (func(int) echoFunc, error) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		c := newBareConn(nc, yield, nil)
		var callers [maxCallers]atomic.Pointer[bareCaller]
		go func() {
			log.Print(readBare(c, &callers)) // the callers wait for ever: the parent process gives up
		}()
		next := 0
		return func(size int) echoFunc {
			id := next % maxCallers // callers of earlier runs are gone
			next++
			frame := make([]byte, bareHeader+size)
			putBareHeader(frame, id)
			caller := &bareCaller{body: make([]byte, size), done: make(chan error, 1)}
			callers[id].Store(caller)
			return func() error {
				c.queue <- &frame
				return <-caller.done
			}
		}, nil
	}
}

func readBare(c *bareConn, callers *[maxCallers]atomic.Pointer[bareCaller]) error {
	for {
		size, id, err := c.header()
		if err != nil {
			return err
		}
		caller := callers[id].Load()
		if size != len(caller.body) {
			return fmt.Errorf("an answer of %d bytes, want %d", size, len(caller.body))
		}
		if _, err := io.ReadFull(c.r, caller.body); err != nil {
			return err
		}
		caller.done <- nil
	}
}
