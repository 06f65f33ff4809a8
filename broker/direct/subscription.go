package direct

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync"
	"time"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/registry"
)

// subscription is one handler, what waits for it, and the publishers that send to it.
type subscription struct {
	broker   *Broker
	id       string
	topic    string
	options  broker.SubscribeOptions
	queue    *broker.Queue
	consumer *broker.Consumer

	serving context.Context // ends when what was handled is to be acked, and the streams are to end
	finish  context.CancelFunc
	streams sync.WaitGroup

	heard  chan string   // publishers that know of it
	bound  chan struct{} // closed when it is registered, or never will be
	keeper *registry.Keeper

	mu      sync.Mutex
	leaving bool
	over    bool
	sources map[string]*source

	once sync.Once
	err  error
}

func newSubscription(b *Broker, topic string, h broker.Handler, o broker.SubscribeOptions) *subscription {
	s := &subscription{broker: b, id: rand.Text(), topic: topic, options: o, heard: make(chan string), bound: make(chan struct{}), sources: map[string]*source{}}
	s.queue = broker.NewQueue(b.config.Buffer, int(b.config.BufferSize))
	s.serving, s.finish = context.WithCancel(context.Background())
	s.consumer = broker.StartConsumer(s.queue, broker.ConsumerConfig{
		Topic: topic, Handler: h, Options: o, Publish: b.Publish, Logger: b.log,
	})
	return s
}

func (s *subscription) Topic() string { return s.topic }

// registrationTime is how long a subscription is registered without being refreshed.
const registrationTime = 30 * time.Second

// register returns once publishers know of it.
func (s *subscription) register(ctx context.Context, addr string) error {
	result := make(chan error, 1)
	go func() { result <- s.keep(addr) }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// spreadTime bounds the wait for publishers to know of a subscription: some may be dead.
const spreadTime = time.Second

func (s *subscription) keep(addr string) error {
	defer close(s.bound)
	keeper, err := registry.Keep(s.broker.registry, s.service(addr), registrationTime, 0, s.broker.log)
	if err != nil {
		return err
	}
	s.keeper = keeper
	s.broker.table.addOwn(s.remote(addr))
	s.awaitPublishers()
	return nil
}

// awaitPublishers waits for a word from each publisher that was registered before the subscription was; those that come
// later find it.
func (s *subscription) awaitPublishers() {
	missing := map[string]bool{}
	for _, id := range s.broker.table.publishers() {
		missing[id] = true
	}
	limit := time.NewTimer(spreadTime)
	defer limit.Stop()
	for len(missing) > 0 {
		select {
		case id := <-s.heard:
			delete(missing, id)
		case <-limit.C:
			s.broker.log.Debug("some publishers do not know of the subscription yet", "topic", s.topic, "publishers", len(missing))
			return
		case <-s.serving.Done():
			return
		}
	}
}

// confirmed takes the word of a publisher, while somebody waits for it.
func (s *subscription) confirmed(ctx context.Context, publisher string) {
	select {
	case s.heard <- publisher:
	case <-s.bound:
	case <-ctx.Done():
	}
}

func (s *subscription) service(addr string) *registry.Service {
	return &registry.Service{Name: serviceName, Nodes: []*registry.Node{{ID: s.id, Address: addr, Metadata: map[string]string{
		metaTopic: s.topic, metaGroup: s.options.Group, metaConcurrency: strconv.Itoa(s.options.Concurrency),
	}}}}
}

func (s *subscription) remote(addr string) remote {
	return remoteOf(s.service(addr).Nodes[0])
}

// Close implements broker.Subscription.
func (s *subscription) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.broker.config.Drain)
	defer cancel()
	return s.close(ctx)
}

// lastWords is how long the ends of connections and registrations may take beyond the time for handlers.
const lastWords = time.Second

// rest is what is left of the time for Close, and lastWords at least: a publisher that is slow is to read its acks.
func rest(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline()
	return max(time.Until(deadline), lastWords)
}

// close tells the registry and the publishers that nothing more is wanted, waits for the handlers that run, acks what
// they have done, and by ending the streams hands back the rest.
func (s *subscription) close(ctx context.Context) error {
	s.once.Do(func() {
		s.deregister(ctx)
		s.leave()
		s.err = s.consumer.Stop(ctx)
		s.mu.Lock()
		s.over = true
		s.mu.Unlock()
		s.finish()
		s.queue.Close() // after finish: a stream that finds it closed is not broken, and has acks to send
		waitFor(&s.streams, rest(ctx))
		s.dropSources()
		s.broker.forget(s)
	})
	return s.err
}

// deregister does not wait long for a registry that hangs: the publishers that matter are told by their streams.
func (s *subscription) deregister(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	select {
	case <-s.bound:
		s.stopKeeper(ctx)
	case <-ctx.Done():
		go func() {
			<-s.bound
			s.stopKeeper(ctx)
		}()
	}
	s.broker.table.gone(s.id)
}

func (s *subscription) stopKeeper(ctx context.Context) {
	if s.keeper == nil {
		return
	}
	if err := s.keeper.Stop(ctx); err != nil {
		s.broker.log.Warn("subscription not deregistered", "topic", s.topic, "error", err)
	}
}

// waitFor waits for all, for a time.
func waitFor(all *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// leave tells the publishers to send nothing more.
func (s *subscription) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
	for _, src := range s.sources {
		src.wake()
	}
}
