package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/plugmicro/micro"
)

// What is sent to a proxy and to what is behind it, and what comes back.
const (
	question64 = `{"name":"Ada, Countess of Lovelace, who wrote the first program"}`
	answer64   = `{"message":"Hello, Ada, Countess of Lovelace, who wrote the first program"}`
)

// Greeting and Name are of the service that does what the HTTP server does.
type Greeting struct {
	Message string `json:"message"`
}

// Name is what it is asked with.
type Name struct {
	Name string `json:"name"`
}

// Greeter is that service.
type Greeter struct{}

// Hello greets.
func (Greeter) Hello(_ context.Context, n *Name) (*Greeting, error) {
	return &Greeting{Message: "Hello, " + n.Name}, nil
}

// greeterRole is a service as users write it, found in the registry that the environment says, until its input ends.
func greeterRole() error {
	svc := micro.New("greeter", micro.WithLogger(slog.New(slog.DiscardHandler)), micro.WithAddress(loopback), micro.WithArgs())
	svc.Handle(Greeter{})
	if err := svc.Start(context.Background()); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin)
	return svc.Stop(context.Background())
}

// cannedRole is the HTTP server behind the proxies: it reads requests and answers all alike, with as little work as Go can do
// it, so that the proxy has the less to wait for. It says its address, and ends when its input does.
func cannedRole() error {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveCanned(c)
		}
	}()
	if err := json.NewEncoder(os.Stdout).Encode(answer{Addr: l.Addr().String()}); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin)
	return l.Close()
}

func serveCanned(c net.Conn) {
	defer c.Close()
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer64), answer64)
	br := bufio.NewReader(c)
	for {
		length, _, err := readHead(br)
		if err != nil {
			return
		}
		if _, err := br.Discard(length); err != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// readHead reads the head of a request or of a response. Its body must have a Content-Length.
func readHead(br *bufio.Reader) (length int, first string, err error) {
	length = -1
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return 0, "", err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first == "" {
			first = string(line)
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case len(line) == 0 && length < 0:
			return 0, "", fmt.Errorf("%q has no Content-Length", first)
		case len(line) == 0:
			return length, first, nil
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, "", err
			}
		}
	}
}

// httpCallers has a keep-alive connection for each caller, which are the same in every turn.
type httpCallers struct {
	addr  string
	bytes []byte // of a request
	all   []*httpCaller
	next  int
}

func newHTTPCallers(addr, path string) *httpCallers {
	return &httpCallers{addr: addr, bytes: fmt.Appendf(nil,
		"POST %s HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nContent-Type: application/json\r\nAccept: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, len(question64), question64)}
}

func (h *httpCallers) caller(int) echoFunc {
	if h.next == maxCallers {
		h.next = 0
	}
	if h.next == len(h.all) {
		h.all = append(h.all, &httpCaller{to: h})
	}
	h.next++
	return h.all[h.next-1].call
}

type httpCaller struct {
	to   *httpCallers
	conn net.Conn
	br   *bufio.Reader
	body []byte
}

func (c *httpCaller) call() error {
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.to.addr, 5*time.Second)
		if err != nil {
			return err
		}
		c.conn, c.br, c.body = conn, bufio.NewReader(conn), make([]byte, len(answer64))
	}
	if _, err := c.conn.Write(c.to.bytes); err != nil {
		return err
	}
	length, first, err := readHead(c.br)
	if err != nil {
		return err
	}
	if first != "HTTP/1.1 200 OK" || length != len(answer64) {
		body, _ := io.ReadAll(io.LimitReader(c.br, int64(min(length, 1<<10))))
		return fmt.Errorf("%s: %s", first, body)
	}
	if _, err := io.ReadFull(c.br, c.body); err != nil {
		return err
	}
	if string(c.body) != answer64 {
		return errors.New("the answer is not that of what is behind the proxy")
	}
	return nil
}

// httpClientRole is the client process of a proxy.
func httpClientRole(addr, path string) error {
	return answerAll(newHTTPCallers(addr, path).caller, "")
}
