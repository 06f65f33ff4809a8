package page

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/gateway"
)

// Limits of what is kept for a browser that is slower than the topic: then the oldest events are dropped, and counted.
const (
	maxListeners = 16
	maxWaiting   = 128
	maxShown     = 32 << 10 // bytes of one body
)

// subscribeTimeout bounds the subscribing.
const subscribeTimeout = 15 * time.Second

// event is a message as the page shows it.
type event struct {
	ID      string            `json:"id"`
	Key     string            `json:"key,omitempty"`
	Header  map[string]string `json:"header,omitempty"`
	Body    string            `json:"body"`
	Binary  bool              `json:"binary,omitempty"`  // Body is base64
	Size    int               `json:"size"`              // of the whole body, in bytes
	Cut     bool              `json:"cut,omitempty"`     // Body is only its beginning
	Time    time.Time         `json:"time"`              // of arrival here
	Dropped int               `json:"dropped,omitempty"` // how many before it the browser was too slow for
}

// events streams what is published to a topic, to this browser too, as one subscriber more.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	topic := r.URL.Query().Get("topic")
	switch {
	case p.Broker == nil:
		gateway.Fail(w, r, gateway.NewProblem(http.StatusNotImplemented, "this page follows no events: it was given no broker"))
		return
	case topic == "":
		gateway.Fail(w, r, gateway.NewProblem(http.StatusBadRequest, "the query must name a topic"))
		return
	}
	select {
	case p.listeners <- struct{}{}:
		defer func() { <-p.listeners }()
	default:
		gateway.Fail(w, r, gateway.NewProblem(http.StatusTooManyRequests, "%d listeners follow events already, which is the limit: close one", maxListeners))
		return
	}
	waiting := &tail{news: make(chan struct{}, 1)}
	sub, err := p.subscribe(r.Context(), topic, waiting.handle)
	if err != nil {
		gateway.Fail(w, r, problemOf(topic, err))
		return
	}
	defer func() {
		if err := sub.Close(); err != nil {
			p.Log.Warn("a subscription of the page did not end as it should", "topic", topic, "error", err)
		}
	}()
	p.show(r.Context(), newStream(w), waiting)
}

func (p *Page) subscribe(ctx context.Context, topic string, h broker.Handler) (broker.Subscription, error) {
	b, err := p.Broker()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, subscribeTimeout)
	defer cancel()
	return b.Subscribe(ctx, topic, h)
}

func problemOf(topic string, err error) *gateway.Problem {
	switch {
	case errors.Is(err, broker.ErrInvalid):
		return gateway.NewProblem(http.StatusBadRequest, "%v", err)
	case errors.Is(err, broker.ErrUnsupported):
		return gateway.NewProblem(http.StatusNotImplemented, "%v", err)
	}
	return gateway.NewProblem(http.StatusServiceUnavailable, "subscribing to %s: %v", topic, err)
}

// show sends what comes, until somebody ends it.
func (p *Page) show(ctx context.Context, s *stream, waiting *tail) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	err := s.send("bound", struct{}{})
	for err == nil {
		select {
		case <-waiting.news:
			for _, e := range waiting.take() {
				if err = s.send("message", e); err != nil {
					return
				}
			}
		case <-beat.C:
			err = s.beat()
		case <-p.closed:
			return
		case <-ctx.Done():
			return
		}
	}
}

// tail is the last events that were not sent yet.
type tail struct {
	news chan struct{}

	mu      sync.Mutex
	list    []event
	dropped int
}

// handle never holds up the broker.
func (t *tail) handle(_ context.Context, m *broker.Message) error {
	e := show(m)
	t.mu.Lock()
	if len(t.list) == maxWaiting {
		t.list = t.list[1:]
		t.dropped++
	}
	t.list = append(t.list, e)
	t.mu.Unlock()
	select {
	case t.news <- struct{}{}:
	default:
	}
	return nil
}

func (t *tail) take() []event {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.list
	if len(list) > 0 {
		list[0].Dropped = t.dropped
	}
	t.list, t.dropped = nil, 0
	return list
}

func show(m *broker.Message) event {
	e := event{ID: m.ID, Key: m.Key, Header: m.Header, Size: len(m.Body), Time: time.Now()}
	body := m.Body
	e.Binary = !utf8.Valid(body)
	e.Cut = len(body) > maxShown
	body = body[:min(len(body), maxShown)]
	if e.Binary {
		e.Body = base64.StdEncoding.EncodeToString(body)
		return e
	}
	for !utf8.Valid(body) { // cut within a character
		body = body[:len(body)-1]
	}
	e.Body = string(body)
	return e
}
