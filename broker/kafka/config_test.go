//go:build unix

package kafka

import (
	"context"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/plugin"
)

func TestZeroConfigIsTheDeclaredDefault(t *testing.T) {
	values := reflect.ValueOf(Config{}.withDefaults())
	for i := range values.NumField() {
		declared, ok := values.Type().Field(i).Tag.Lookup("default")
		if ok {
			require.Equal(t, declared, strings.Trim(fmt.Sprint(values.Field(i)), "[]"), values.Type().Field(i).Name)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for says, c := range map[string]Config{
		`address "kafka": want HOST:PORT`:  {Address: []string{"a:1", "kafka"}},
		`mechanism "oauth": want plain`:    {Mechanism: "oauth"},
		"password without user":            {Password: plugin.NewSecret(password)},
		`compression "lzw": want none`:     {Compression: "lzw"},
		`missing-topics "no": want create`: {MissingTopics: "no"},
		`start "first": want newest`:       {Start: "first"},
		"timeout -1s":                      {Timeout: -time.Second},
		"max-message -1":                   {MaxMessage: -1},
		"partitions -1":                    {Partitions: -1},
		"replication -1":                   {Replication: -1},
		"session 10ms: want at least 1s":   {Session: 10 * time.Millisecond},
		"buffer -1":                        {Buffer: -1},
		"buffer-size -1":                   {BufferSize: -1},
		"drain -1s":                        {Drain: -time.Second},
		"characters that SCRAM forbids":    {User: "a", Password: plugin.NewSecret("b\x00"), Mechanism: "scram-sha-256"},
		"/none":                            {TLS: plugin.TLS{CA: "/none"}},
	} {
		_, err := New(new(plugin.Env), c)
		require.ErrorContains(t, err, "kafka broker: ")
		require.NotContains(t, err.Error(), password)
		require.ErrorContains(t, err, says)
	}
}

func TestProgress(t *testing.T) {
	p := newProgress(3)
	var marks []*mark
	for _, offset := range []int64{5, 7, 8} { // 6 was compacted away
		m, err := p.begin(t.Context(), offset)
		require.NoError(t, err)
		marks = append(marks, m)
	}
	require.Nil(t, p.tryToBegin(9), "three are begun")
	p.finish(marks[1])
	_, is := p.uncommitted()
	require.False(t, is, "5 is not done")
	p.finish(marks[0])
	offset, is := p.uncommitted()
	require.True(t, is)
	require.EqualValues(t, 8, offset)
	p.commit(offset)
	_, is = p.uncommitted()
	require.False(t, is)
	require.NotNil(t, p.tryToBegin(9))
	p.finish(marks[2])
	offset, _ = p.uncommitted()
	require.EqualValues(t, 9, offset)
}

func TestAllMistakesAreNamed(t *testing.T) {
	err := Config{Address: []string{"a", "b:1", "c"}, Start: "first", Drain: -1}.Validate()
	require.EqualError(t, err, `address "a": want HOST:PORT
address "c": want HOST:PORT
start "first": want newest or oldest
drain -1ns: want more than 0`)
}

// TestNoConnection is not taken for a server that does not answer.
func TestNoConnection(t *testing.T) {
	b := open(t, Config{Address: []string{"lost:1"}, Timeout: 100 * time.Millisecond})
	defer b.Close()
	b.cluster.conns.dialer = func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	err := b.Publish(t.Context(), "t", &broker.Message{})
	require.EqualError(t, err, `publish to "t": broker kafka at lost:1: no connection within 100ms: context deadline exceeded: check --broker-address`)
}

// TestSilentPeerIsNotReadForEver is for what kafka-go reads without a limit: the answers of SASL.
func TestSilentPeerIsNotReadForEver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	c := newConns(100*time.Millisecond, nil, []string{l.Addr().String()})
	conn, err := c.dial(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Time{}))
	var timeout net.Error
	_, err = conn.Read(make([]byte, 1))
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())

	c.close()
	_, err = io.ReadFull(conn, make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = c.dial(t.Context(), "tcp", l.Addr().String())
	require.Error(t, err)
}
