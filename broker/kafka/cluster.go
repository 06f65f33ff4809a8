package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/plugmicro/micro/broker"
)

// refreshPause is the least time between two requests for new metadata.
const refreshPause = 200 * time.Millisecond

// cluster asks the servers about topics and offsets. It is safe for concurrent use.
type cluster struct {
	config    Config
	sasl      sasl.Mechanism
	conns     *conns
	transport *kafka.Transport
	client    *kafka.Client

	open context.Context // ends what kafka-go does in the background
	end  context.CancelFunc
	met  atomic.Bool // a server has answered

	mu        sync.Mutex
	refreshed time.Time
}

func newCluster(c Config) (*cluster, error) {
	secure, err := c.TLS.Client()
	if err != nil {
		return nil, err
	}
	mechanism, err := c.sasl()
	if err != nil {
		return nil, err
	}
	cl := &cluster{config: c, sasl: mechanism, conns: newConns(c.Timeout, secure, c.Address)}
	cl.open, cl.end = context.WithCancel(context.Background())
	cl.transport = cl.newTransport()
	cl.client = &kafka.Client{Addr: kafka.TCP(bootstrap), Transport: cl.transport}
	return cl, nil
}

func (c Config) sasl() (sasl.Mechanism, error) {
	if c.User == "" {
		return nil, nil
	}
	algorithm := scram.SHA256
	switch c.Mechanism {
	case "plain":
		return plain.Mechanism{Username: c.User, Password: c.Password.Reveal()}, nil
	case "scram-sha-512":
		algorithm = scram.SHA512
	}
	mechanism, err := scram.Mechanism(algorithm, c.User, c.Password.Reveal())
	if err != nil {
		return nil, errors.New("--broker-user or --broker-password has characters that SCRAM forbids")
	}
	return mechanism, nil
}

func (c *cluster) newTransport() *kafka.Transport {
	return &kafka.Transport{
		Dial: c.conns.dial, DialTimeout: c.config.Timeout, ClientID: clientID, SASL: c.sasl, Context: c.open,
	}
}

// dialer is for a group, whose connections are own.
func (c *cluster) dialer(own *conns) *kafka.Dialer {
	return &kafka.Dialer{ClientID: clientID, Timeout: c.config.Timeout, DialFunc: own.dial, SASLMechanism: c.sasl}
}

// close ends everything that is under way. A call after that may leave something behind.
func (c *cluster) close() {
	c.end()
	c.conns.close()
	c.transport.CloseIdleConnections()
}

// try calls f until it succeeds, fails for good, ctx ends, the time is over that the settings allow, or c is closed. It tells
// failed, if that is not nil, when a try was begun that may be followed by others, and why it failed.
func (c *cluster) try(ctx context.Context, failed func(begun time.Time, err error), f func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	defer context.AfterFunc(c.open, cancel)()
	var pauses *backoff.ExponentialBackOff
	var last error
	for {
		begun := time.Now()
		err := c.once(limited, f)
		switch {
		case err == nil:
			return nil
		case c.open.Err() != nil:
			return broker.ErrClosed
		case final(err):
			return c.at(err)
		case limited.Err() == nil:
			last = err
			c.refresh()
		case last == nil:
			last = err
		}
		if failed != nil && ctx.Err() != context.Canceled {
			failed(begun, last)
		}
		if pauses == nil {
			pauses = backoff.NewExponentialBackOff()
			pauses.InitialInterval, pauses.MaxInterval = 50*time.Millisecond, time.Second
		}
		select {
		case <-limited.Done():
			if c.open.Err() != nil {
				return broker.ErrClosed
			}
			return c.gaveUp(ctx, last)
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// once leaves time for another try, over another connection, if there is no answer.
func (c *cluster) once(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout/2)
	defer cancel()
	return f(ctx)
}

// gaveUp is the error when trying was ended by ctx or by the limit; last says why there was something to try.
func (c *cluster) gaveUp(ctx context.Context, last error) error {
	if err := ctx.Err(); err != nil {
		if last == nil || errors.Is(last, err) {
			return c.at(err)
		}
		return c.where(fmt.Errorf("%w; before that: %w", err, c.explain(last)))
	}
	if last == nil || errors.Is(last, os.ErrDeadlineExceeded) || errors.Is(last, context.DeadlineExceeded) {
		what := "no answer"
		if !c.conns.reached.Load() {
			what = "no connection"
		}
		return c.at(fmt.Errorf("%s within %s: %w", what, c.config.Timeout, context.DeadlineExceeded))
	}
	return c.where(fmt.Errorf("tried for %s: %w", c.config.Timeout, c.explain(last)))
}

// at says which servers answered so, or did not, and what that means.
func (c *cluster) at(err error) error { return c.where(c.explain(err)) }

func (c *cluster) where(err error) error {
	return fmt.Errorf("broker kafka at %s: %w", strings.Join(c.config.Address, ", "), err)
}

func (c *cluster) explain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && !c.conns.reached.Load() {
		return fmt.Errorf("%w: check --broker-address", err)
	}
	return c.config.explain(err, c.met.Load())
}

// refresh makes the next request learn anew where everything is. kafka-go knows no other way than to forget its
// connections; those that are in use end later.
func (c *cluster) refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.refreshed) < refreshPause {
		return
	}
	c.refreshed = time.Now()
	c.transport.CloseIdleConnections()
}

// partitions is how many a topic has, as far as is known: kafka.UnknownTopicOrPartition may be out of date.
func (c *cluster) partitions(ctx context.Context, topic string) (int, error) {
	n, err := partitions(ctx, c.transport, c.client.Addr, topic)
	if err == nil {
		c.met.Store(true)
	}
	return n, err
}

func partitions(ctx context.Context, t *kafka.Transport, addr net.Addr, topic string) (int, error) {
	answer, err := t.RoundTrip(ctx, addr, &metadata.Request{TopicNames: []string{topic}})
	if err != nil {
		return 0, err
	}
	for _, found := range answer.(*metadata.Response).Topics {
		if found.Name != topic {
			continue
		}
		switch {
		case found.ErrorCode != 0:
			return 0, kafka.Error(found.ErrorCode)
		case found.IsInternal:
			return 0, stop{fmt.Errorf("the topic %q belongs to the servers themselves: use another", topic)}
		case len(found.Partitions) == 0:
			return 0, kafka.LeaderNotAvailable
		}
		return len(found.Partitions), nil
	}
	return 0, kafka.UnknownTopicOrPartition
}

// topic is how many partitions a topic has. If it is missing it is created, unless that is not wanted. failed is for try.
func (c *cluster) topic(ctx context.Context, topic string, failed func(time.Time, error)) (n int, err error) {
	err = c.try(ctx, failed, func(ctx context.Context) error {
		n, err = c.partitions(ctx, topic)
		if !errors.Is(err, kafka.UnknownTopicOrPartition) {
			return err
		}
		if n, err = c.look(ctx, topic); err == nil {
			c.refresh()
			n, err = c.partitions(ctx, topic)
		}
		if !errors.Is(err, kafka.UnknownTopicOrPartition) {
			return err
		}
		if c.config.MissingTopics == "fail" {
			return stop{fmt.Errorf("the topic %q does not exist, or %s may not see it: create it, as by kafka-topics.sh --create --topic %s, or set --broker-missing-topics to create (%w)",
				topic, c.config.who(), topic, err)}
		}
		if err := c.create(ctx, topic); err != nil {
			return err
		}
		n, err = c.partitions(ctx, topic)
		return err
	})
	return n, err
}

// look asks a server itself, over a connection of its own, so that those in use are not disturbed.
func (c *cluster) look(ctx context.Context, topic string) (int, error) {
	t := c.newTransport()
	defer t.CloseIdleConnections()
	t.MetadataTopics = []string{topic}
	return partitions(ctx, t, c.client.Addr, topic)
}

func (c *cluster) create(ctx context.Context, topic string) error {
	replicas := c.config.Replication
	if replicas == 0 {
		replicas = -1 // the server's default
	}
	answer, err := c.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: c.config.Partitions, ReplicationFactor: replicas}},
	})
	if err != nil {
		return err
	}
	if err := answer.Errors[topic]; err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		return fmt.Errorf("creating the topic %q: %w", topic, err)
	}
	return nil
}

// ends is where the partitions of a topic end now.
func (c *cluster) ends(ctx context.Context, topic string, partitions int) (map[int]int64, error) {
	var requests []kafka.OffsetRequest
	for p := range partitions {
		requests = append(requests, kafka.LastOffsetOf(p))
	}
	answer, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: requests}})
	if err != nil {
		return nil, err
	}
	ends := map[int]int64{}
	for _, p := range answer.Topics[topic] {
		if p.Error != nil {
			return nil, p.Error
		}
		ends[p.Partition] = p.LastOffset
	}
	if len(ends) != partitions {
		return nil, kafka.LeaderNotAvailable
	}
	return ends, nil
}

// first is where a partition begins now.
func (c *cluster) first(ctx context.Context, topic string, partition int) (int64, error) {
	answer, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: {kafka.FirstOffsetOf(partition)}},
	})
	if err != nil {
		return 0, err
	}
	for _, p := range answer.Topics[topic] {
		return p.FirstOffset, p.Error
	}
	return 0, kafka.LeaderNotAvailable
}

// found begins a group that has never existed at the ends of the partitions, by committing them. The commit is that of
// nobody: the server refuses it as soon as the group has a member, and who that is has been here before.
func (c *cluster) found(ctx context.Context, group, topic string, partitions int) error {
	var ends map[int]int64 // stays the same over tries: some of them may have been committed
	return c.try(ctx, nil, func(ctx context.Context) error {
		if ends == nil {
			old, err := c.existed(ctx, group, topic, partitions)
			if err != nil || old {
				return err
			}
			if ends, err = c.ends(ctx, topic, partitions); err != nil {
				return err
			}
		}
		err := c.commit(ctx, group, topic, &kafka.Generation{ID: -1}, ends)
		if errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.IllegalGeneration) {
			return nil
		}
		return err
	})
}

// existed tells whether a group has committed anything. Partitions that were added since are read from their beginning.
func (c *cluster) existed(ctx context.Context, group, topic string, partitions int) (bool, error) {
	var all []int
	for p := range partitions {
		all = append(all, p)
	}
	committed, err := c.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: all}})
	if err != nil {
		return false, err
	}
	if committed.Error != nil && !errors.Is(committed.Error, kafka.GroupIdNotFound) {
		return false, committed.Error
	}
	old := false
	for _, p := range committed.Topics[topic] {
		if p.Error != nil {
			return false, p.Error
		}
		old = old || p.CommittedOffset >= 0
	}
	return old, nil
}

// commit commits offsets of partitions in the name of a generation of the group.
func (c *cluster) commit(ctx context.Context, group, topic string, by *kafka.Generation, ends map[int]int64) error {
	var offsets []kafka.OffsetCommit
	for p, offset := range ends {
		offsets = append(offsets, kafka.OffsetCommit{Partition: p, Offset: offset})
	}
	answer, err := c.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: int(by.ID), MemberID: by.MemberID, Topics: map[string][]kafka.OffsetCommit{topic: offsets},
	})
	if err != nil {
		return err
	}
	for _, p := range answer.Topics[topic] {
		if p.Error != nil {
			return p.Error
		}
	}
	return nil
}
