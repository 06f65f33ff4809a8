package mux_test

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/mux"
	"github.com/plugmicro/micro/internal/wire"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/status"
	"github.com/plugmicro/micro/transport"
	"github.com/plugmicro/micro/transport/tcp"
)

// line is what one side of the conversation in docs/wire.md sends.
type line struct {
	from  byte // 'C' or 'S'
	bytes []byte
}

// conversation reads the block of docs/wire.md that begins with ```hex: bytes up to a comment.
func conversation(t *testing.T) []line {
	doc, err := os.ReadFile("../../docs/wire.md")
	require.NoError(t, err)
	_, block, ok := strings.Cut(string(doc), "```hex\n")
	require.True(t, ok)
	block, _, _ = strings.Cut(block, "```")
	var lines []line
	for text := range strings.Lines(block) {
		text, _, _ = strings.Cut(text, "#")
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		if text[1] == '>' {
			lines = append(lines, line{from: text[0]})
			text = text[2:]
		}
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		require.NoError(t, err)
		last := &lines[len(lines)-1]
		last.bytes = append(last.bytes, b...)
	}
	require.Greater(t, len(lines), 10)
	return lines
}

// play is one side of the conversation, and fails the test if the other one says something else.
func play(t *testing.T, conn net.Conn, side byte, lines []line, before func(line)) {
	conn.SetDeadline(time.Now().Add(soon))
	for i, l := range lines {
		if before != nil {
			before(l)
		}
		if l.from == side {
			if _, err := conn.Write(l.bytes); err != nil {
				t.Errorf("line %d: %v", i, err)
				return
			}
			continue
		}
		got := make([]byte, len(l.bytes))
		n, err := io.ReadFull(conn, got)
		if err != nil || string(got) != string(l.bytes) {
			t.Errorf("line %d is not as the document has it: %v\ndocumented % x\ngot        % x", i, err, l.bytes, got[:n])
			return
		}
	}
}

func overTCP(t *testing.T) transport.Transport {
	tr, err := tcp.New(&plugin.Env{}, tcp.Config{})
	require.NoError(t, err)
	return tr
}

type hello struct {
	Name string `json:"name"`
}

type greeting struct {
	Message string `json:"message"`
}

// TestDocumentedClient: a client of ours says what the document says.
func TestDocumentedClient(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	lines, played := conversation(t), make(chan struct{})
	go func() {
		defer close(played)
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		play(t, conn, 'S', lines, nil)
	}()

	c, err := mux.Dial(t.Context(), overTCP(t), l.Addr().String(), mux.Options{})
	require.NoError(t, err)
	defer c.Close()
	json := codec.For(hello{})
	req := mux.Request{Service: "greeter", Endpoint: "Greeter.Hello", Codec: json, Body: &hello{"Ada"}, Timeout: 5 * time.Second,
		Metadata: map[string]string{"tenant": "acme"}}
	b, err := c.Call(context.Background(), &req)
	require.NoError(t, err)
	require.Equal(t, `{"message":"Hello, Ada"}`, string(b.B))

	_, err = c.Call(context.Background(), &mux.Request{Service: "greeter", Endpoint: "Greeter.Nope", Codec: json, Body: &hello{}, Timeout: 5 * time.Second})
	require.Equal(t, &mux.Error{Remote: true, NotRun: true, Status: status.Error{Code: status.Unimplemented, Message: "no Greeter.Nope"}}, failure(t, err))

	st, err := c.Open(context.Background(), &mux.Request{Service: "greeter", Endpoint: "Greeter.Chat", Codec: json})
	require.NoError(t, err)
	require.NoError(t, st.Send(t.Context(), json, &hello{"Bob"}))
	var g greeting
	require.NoError(t, recvInto(t.Context(), st, json, &g))
	require.Equal(t, "Hello, Bob", g.Message)
	require.NoError(t, st.CloseSend())
	_, err = st.Recv(t.Context())
	require.Equal(t, io.EOF, err)
	<-c.Closed() // by the server's GoAway
	<-played
}

// TestDocumentedServer: a server of ours answers as the document says.
func TestDocumentedServer(t *testing.T) {
	greet := func(h hello) *greeting { return &greeting{"Hello, " + h.Name} }
	h := handler{
		"Greeter.Hello": func(c *mux.Call) {
			var req hello
			if err := c.Codec.Decode(c.Body.B, &req); err != nil {
				c.Fail(err)
				return
			}
			c.Reply(greet(req))
		},
		"Greeter.Chat": func(c *mux.Call) {
			for {
				var req hello
				if err := recvInto(c, c.Stream, c.Codec, &req); err != nil {
					c.Reply(nil)
					return
				}
				c.Stream.Send(c, c.Codec, greet(req))
			}
		},
	}
	l, err := overTCP(t).Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr())
	require.NoError(t, err)
	defer conn.Close()
	accepted, err := l.Accept(t.Context())
	require.NoError(t, err)
	workers, servers, ended := mux.NewWorkers(), make(chan *mux.Server, 1), make(chan error, 1)
	defer workers.Close()
	go func() {
		s, err := mux.Accept(context.Background(), accepted, h, workers, mux.Options{})
		if err != nil {
			ended <- err
			return
		}
		servers <- s
		ended <- s.Run()
	}()
	play(t, conn, 'C', conversation(t), func(l line) {
		if l.from == 'S' && len(l.bytes) > 4 && wire.Type(l.bytes[4]) == wire.GoAway {
			(<-servers).Drain()
		}
	})
	require.NoError(t, <-ended)
}
