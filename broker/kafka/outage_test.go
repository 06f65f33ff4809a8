//go:build unix

package kafka

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/servers"
)

// logbook keeps what is logged, but for debugging: a line each, without the time.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logbook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logbook) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Split(strings.TrimSuffix(b.text.String(), "\n"), "\n")
}

func (b *logbook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func openLogged(t *testing.T, c Config) (*Broker, *logbook) {
	log := new(logbook)
	b, err := newBroker(context.Background(), c, log.logger())
	require.NoError(t, err)
	return b, log
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl, err := newCluster(testConfig("a:1"))
		require.NoError(t, err)
		defer cl.close()
		log := new(logbook)
		o := newOutage(log.logger(), cl)
		fails := func(who string) { o.fails(who, time.Now(), errors.New("boom"), "reading fails", "by", who) }
		works := func(who string) { o.works(who, "reading goes on", "by", who) }

		fails("x")
		time.Sleep(settle / 2)
		fails("y")
		works("x")
		works("y")
		fails("x")
		time.Sleep(settle / 2)
		fails("x")
		require.Equal(t, []string{""}, log.lines(), "what passes soon is not told")

		time.Sleep(settle / 2)
		fails("x")
		fails("y")
		fails("z")
		works("x")
		o.gaveUp("y")
		o.gaveUp("z")
		want := []string{`level=WARN msg="reading fails, will go on trying" by=x error="broker kafka at a:1: boom"`}
		require.Equal(t, want, log.lines(), "to give up is not to work")
		works("y")
		want = append(want, `level=INFO msg="reading goes on" by=y`)
		works("z")
		require.Equal(t, want, log.lines())

		o.fails("x", time.Now().Add(-settle), context.DeadlineExceeded, "reading fails")
		want = append(want, `level=WARN msg="reading fails, will go on trying" error="broker kafka at a:1: no answer: context deadline exceeded: check --broker-address"`)
		require.Equal(t, want, log.lines(), "one try was long enough")
	})
}

// TestEndOfAReaderIsNoSuccess ends one that cannot read, as the end of a generation does.
func TestEndOfAReaderIsNoSuccess(t *testing.T) {
	cl, err := newCluster(testConfig("127.0.0.1:1"))
	require.NoError(t, err)
	defer cl.close()
	log := new(logbook)
	r := &reader{cluster: cl, topic: "t", partitions: 1, outage: newOutage(log.logger(), cl)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	go func() { r.run(ctx); close(ended) }()
	require.Eventually(t, func() bool { return log.lines()[0] != "" }, 20*time.Second, time.Millisecond)
	cancel()
	receive(t, ended)
	require.Len(t, log.lines(), 1)
	require.Contains(t, log.lines()[0], "level=WARN")
	require.Contains(t, log.lines()[0], "connection refused")
}

// TestOutagesAreToldOnce kills a server under one that publishes, a follower and a member of a group.
func TestOutagesAreToldOnce(t *testing.T) {
	t.Parallel()
	server := servers.Kafka(t)
	config := testConfig(server.Addr)
	publisher, published := openLogged(t, config)
	defer publisher.Close()
	follower, followed := openLogged(t, config)
	defer follower.Close()
	member, joined := openLogged(t, config)
	defer member.Close()
	require.NoError(t, publisher.Publish(t.Context(), "t", &broker.Message{}))
	reads := []<-chan *broker.Message{subscribe(t, follower, "t"), subscribe(t, member, "t", broker.Group("g"))}

	server.Kill(t)
	back := make(chan struct{})
	var publishing sync.WaitGroup
	defer publishing.Wait()
	for range 4 {
		publishing.Go(func() {
			for done := false; !done; {
				select {
				case <-back:
					done = true // and once more
				case <-time.After(20 * time.Millisecond):
				}
				ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
				for range 2 {
					_ = publisher.Publish(ctx, "t", &broker.Message{Body: []byte("x")})
				}
				cancel()
			}
		})
	}
	logs := []*logbook{published, followed, joined}
	told := func(n int) func() bool {
		return func() bool {
			for _, log := range logs {
				if lines := log.lines(); len(lines) < n || lines[n-1] == "" {
					return false
				}
			}
			return true
		}
	}
	require.Eventually(t, told(1), 20*time.Second, 10*time.Millisecond, "the outage begins")
	server.Start(t)
	require.Eventually(t, told(2), 40*time.Second, 10*time.Millisecond, "it ends")
	close(back)
	publishing.Wait()
	require.NoError(t, publisher.Publish(t.Context(), "t", &broker.Message{}))
	for _, read := range reads {
		receive(t, read)
	}
	for i, says := range []string{`INFO msg="publishing goes on" topic=t`, `INFO msg="reading goes on" topic=t`, `INFO msg="member of the group again" topic=t group=g@t`} {
		lines := logs[i].lines()
		require.Len(t, lines, 2, "%q", lines)
		require.Contains(t, lines[0], "level=WARN")
		require.Contains(t, lines[0], "topic=t")
		require.Contains(t, lines[0], "broker kafka at "+server.Addr)
		require.Equal(t, "level="+says, lines[1])
	}
}

// TestRebalanceIsNoTrouble lets the group change while a member joins it.
func TestRebalanceIsNoTrouble(t *testing.T) {
	c, config := fake(t)
	b, log := openLogged(t, config)
	defer b.Close()
	s, err := b.Subscribe(t.Context(), "t", newLedger().handle, broker.Group("g"))
	require.NoError(t, err)
	<-both(refuse(kmsg.SyncGroup, kerr.RebalanceInProgress), refuse(kmsg.Heartbeat, kerr.RebalanceInProgress))(t, c)
	require.Eventually(t, func() bool { return s.(*member).joins.Load() >= 2 }, 20*time.Second, time.Millisecond)
	require.Equal(t, []string{""}, log.lines())
}
