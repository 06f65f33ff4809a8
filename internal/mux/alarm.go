package mux

import "time"

// alarm rings at the earliest deadline of the calls of a connection: one timer for all, because one for each would cost
// more than the call. It is guarded by the lock of who has the calls.
type alarm struct {
	ring  func()
	timer *time.Timer
	at    time.Time // when it rings; zero: it is not set
}

// notLater makes it ring at t at the latest; the zero time changes nothing.
func (a *alarm) notLater(t time.Time) {
	if t.IsZero() || !a.at.IsZero() && !t.Before(a.at) {
		return
	}
	a.at = t
	if a.timer == nil {
		a.timer = time.AfterFunc(time.Until(t), a.ring)
		return
	}
	a.timer.Reset(time.Until(t))
}

// rung is said by ring, before it sets the alarm for what is left.
func (a *alarm) rung() { a.at = time.Time{} }

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}
