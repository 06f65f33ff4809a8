package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// stream is a response of server-sent events.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	return &stream{w: w, rc: http.NewResponseController(w)}
}

// send sends one event; an error means that the browser is gone, or takes nothing.
func (s *stream) send(event string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.write("event: " + event + "\ndata: " + string(data) + "\n\n")
}

// beat sends nothing that the page sees.
func (s *stream) beat() error { return s.write(":\n\n") }

func (s *stream) write(text string) error {
	_ = s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // where that is not possible, the server's own limits hold
	if _, err := fmt.Fprint(s.w, text); err != nil {
		return err
	}
	return s.rc.Flush()
}
