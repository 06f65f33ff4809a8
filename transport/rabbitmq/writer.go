package rabbitmq

import (
	"runtime"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// outgoing is a message and the queue that it is for.
type outgoing struct {
	key string
	msg amqp091.Publishing
}

// source has messages to publish, perhaps.
type source interface{ take() (outgoing, bool) }

// take makes an outgoing a source of one message.
func (o *outgoing) take() (outgoing, bool) {
	next := *o
	o.key = ""
	return next, next.key != ""
}

// writer publishes for all connections of a link, a message of each in turn. Its goroutine lives while there is something
// to publish: when it is started it is the next to run where its starter waits for an answer.
type writer struct {
	publish func(outgoing) error // waits as long as the server takes nothing

	mu      sync.Mutex
	ready   []source
	spare   []source
	running bool
	over    bool // nothing is published any more
	done    sync.WaitGroup
}

// add has s asked for messages until it has none.
func (w *writer) add(s source) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.ready = append(w.ready, s)
	if !w.running {
		w.running = true
		w.done.Go(w.run)
	}
}

func (w *writer) run() {
	for {
		runtime.Gosched() // those who are ready to run send first: their frames go in one message
		batch := w.batch()
		if batch == nil {
			return
		}
		for _, s := range batch {
			o, ok := s.take()
			if !ok {
				continue
			}
			if w.publish(o) != nil {
				w.end()
				break
			}
			w.add(s)
		}
	}
}

// batch is all that is ready; nil: the goroutine ends.
func (w *writer) batch() []source {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.spare) // connections that were closed are not to be kept
	if len(w.ready) == 0 || w.over {
		w.running = false
		return nil
	}
	batch := w.ready
	w.ready, w.spare = w.spare[:0], batch
	return batch
}

// end publishes nothing any more.
func (w *writer) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.ready = nil
}

// backlog is how many sources wait.
func (w *writer) backlog() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ready)
}
