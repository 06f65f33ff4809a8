package tcp

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/transport"
)

// The benchmarks come in pairs: bare is the least that a program can do over net.Conn, tcp is this transport.

// BenchmarkPingPong is one caller that waits for each echo.
func BenchmarkPingPong(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name+"/bare", func(b *testing.B) { benchmarkBarePingPong(b, size.bytes) })
		b.Run(size.name+"/tcp", func(b *testing.B) { benchmarkPingPong(b, Config{}, size.bytes) })
		b.Run(size.name+"/tls", func(b *testing.B) { benchmarkPingPong(b, withTLS(b), size.bytes) })
	}
}

// BenchmarkCallers is many callers on one connection; bare has one writer that yields before it writes.
func BenchmarkCallers(b *testing.B) {
	for _, size := range sizes {
		for _, callers := range []int{1, 2, 8, 64} {
			name := size.name + "/" + strconv.Itoa(callers)
			b.Run(name+"/bare", func(b *testing.B) { benchmarkCallers(b, callers, size.bytes, bareShared(b)) })
			b.Run(name+"/tcp", func(b *testing.B) { benchmarkCallers(b, callers, size.bytes, tcpShared(b, Config{})) })
			b.Run(name+"/tls", func(b *testing.B) { benchmarkCallers(b, callers, size.bytes, tcpShared(b, withTLS(b))) })
		}
	}
}

// BenchmarkOneWay sends without waiting for answers.
func BenchmarkOneWay(b *testing.B) {
	for _, size := range append(sizes, benchSize{"1MiB", 1 << 20}) {
		b.Run(size.name+"/tcp", func(b *testing.B) { benchmarkOneWay(b, Config{}, size.bytes) })
		b.Run(size.name+"/tls", func(b *testing.B) { benchmarkOneWay(b, withTLS(b), size.bytes) })
	}
}

func withTLS(b *testing.B) Config { return Config{TLS: testcert.New(b).TLS()} }

type benchSize struct {
	name  string
	bytes int
}

var sizes = []benchSize{{"64B", 64}, {"64KiB", 64 << 10}}

func benchmarkOneWay(b *testing.B, c Config, size int) {
	client, server := connect(b, c)
	go func() {
		msg := make([]byte, size)
		for client.Send(context.Background(), msg) == nil {
		}
	}()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := server.Recv(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkBarePingPong(b *testing.B, size int) {
	client, server := bareConns(b)
	go io.CopyBuffer(struct{ io.Writer }{server}, struct{ io.Reader }{server}, make([]byte, size))
	msg := make([]byte, size)
	benchmarkEcho(b, func() error {
		if _, err := client.Write(msg); err != nil {
			return err
		}
		_, err := io.ReadFull(client, msg)
		return err
	})
}

func benchmarkPingPong(b *testing.B, c Config, size int) {
	client, server := connect(b, c)
	go echo(server)
	msg := make([]byte, size)
	benchmarkEcho(b, func() error {
		if err := client.Send(context.Background(), msg); err != nil {
			return err
		}
		_, err := client.Recv(context.Background())
		return err
	})
}

func benchmarkEcho(b *testing.B, call func() error) {
	took := make([]time.Duration, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		if err := call(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
}

func echo(c transport.Conn) {
	for {
		msg, err := c.Recv(context.Background())
		if err != nil {
			return
		}
		if err := c.Send(context.Background(), msg); err != nil {
			return
		}
	}
}

// shared is a connection that many callers send on.
type shared struct {
	send func(msg []byte) error
	recv func() ([]byte, error)
}

func benchmarkCallers(b *testing.B, callers, size int, conn shared) {
	answers := make([]chan struct{}, callers)
	for i := range answers {
		answers[i] = make(chan struct{}, 1)
	}
	go func() {
		for {
			msg, err := conn.recv()
			if err != nil {
				return
			}
			answers[binary.BigEndian.Uint32(msg)] <- struct{}{}
		}
	}()
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			msg := make([]byte, size)
			binary.BigEndian.PutUint32(msg, uint32(i))
			for left.Add(-1) >= 0 {
				if err := conn.send(msg); err != nil {
					b.Error(err)
					return
				}
				<-answers[i]
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func tcpShared(b *testing.B, c Config) shared {
	client, server := connect(b, c)
	go echo(server)
	return shared{
		send: func(msg []byte) error { return client.Send(context.Background(), msg) },
		recv: func() ([]byte, error) { return client.Recv(context.Background()) },
	}
}

func bareShared(b *testing.B) shared {
	client, server := bareConns(b)
	c, s := newBareFramed(client), newBareFramed(server)
	go func() {
		for {
			msg, err := s.recv()
			if err != nil {
				return
			}
			s.send(msg)
		}
	}()
	b.Cleanup(func() { close(c.wake); close(s.wake) })
	return shared{send: c.send, recv: c.recv}
}

// bareFramed has no limits, no deadlines, no backpressure and no errors.
type bareFramed struct {
	r    *bufio.Reader
	msg  []byte
	wake chan struct{}

	mu           sync.Mutex
	buf, written []byte
}

func newBareFramed(nc net.Conn) *bareFramed {
	f := &bareFramed{r: bufio.NewReaderSize(nc, 32<<10), wake: make(chan struct{}, 1)}
	go func() {
		for range f.wake {
			runtime.Gosched()
			f.mu.Lock()
			buf := f.buf
			f.buf, f.written = f.written[:0], nil
			f.mu.Unlock()
			if _, err := nc.Write(buf); err != nil {
				return
			}
			f.mu.Lock()
			f.written = buf
			f.mu.Unlock()
		}
	}()
	return f
}

func (f *bareFramed) send(msg []byte) error {
	f.mu.Lock()
	f.buf = append(binary.BigEndian.AppendUint32(f.buf, uint32(len(msg))), msg...)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return nil
}

func (f *bareFramed) recv() ([]byte, error) {
	head, err := f.r.Peek(4)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head))
	f.r.Discard(4)
	if cap(f.msg) < n {
		f.msg = make([]byte, n)
	}
	_, err = io.ReadFull(f.r, f.msg[:n])
	return f.msg[:n], err
}

func bareConns(tb testing.TB) (client, server net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	require.NoError(tb, err)
	server, err = l.Accept()
	require.NoError(tb, err)
	tb.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func connect(tb testing.TB, c Config) (client, server transport.Conn) {
	t, err := New(&plugin.Env{}, c)
	require.NoError(tb, err)
	l, err := t.Listen(context.Background(), "127.0.0.1:0")
	require.NoError(tb, err)
	defer l.Close()
	client, err = t.Dial(context.Background(), l.Addr())
	require.NoError(tb, err)
	server, err = l.Accept(context.Background())
	require.NoError(tb, err)
	tb.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}
