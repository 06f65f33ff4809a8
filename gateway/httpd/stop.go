package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// cutShare is which part of DrainTimeout those have to end who are told that it is over.
const cutShare = 10

// Stop stops the gateway: /readyz says no; for StopDelay all goes on, but for connections, which end with their answer; no more
// connections are taken; requests that run may finish, and streams go on, until DrainTimeout is nearly over, when their
// contexts end; what is still there at the end of it, or of ctx, is cut off, which is an error. It does not close the
// plugins, which are the Host's.
func (g *Gateway) Stop(ctx context.Context) error {
	if g.stopping.Swap(true) {
		return nil
	}
	g.log.Info("stopping: requests that run may finish", "limit", g.settings.DrainTimeout)
	limit := time.Now().Add(g.settings.DrainTimeout)
	ctx, cancel := context.WithDeadline(ctx, limit)
	defer cancel()
	wait(ctx, g.settings.StopDelay)
	g.backend.page.Close()
	nearly, cancel := context.WithDeadline(ctx, limit.Add(-g.settings.DrainTimeout/cutShare))
	defer cancel()
	err := g.drain(nearly)
	if err != nil {
		g.tell(ctx)
		err = g.drain(ctx)
	}
	g.cut(errDrained)
	err = errors.Join(err, shutDown(ctx, g.admin))
	if err != nil {
		for _, s := range []*http.Server{g.redirect, g.public, g.admin} {
			if s != nil {
				s.Close()
			}
		}
		err = fmt.Errorf("stop: requests were cut off when %s had passed, which is the drain-timeout", g.settings.DrainTimeout)
	}
	err = errors.Join(err, g.backend.Close())
	if err == nil {
		g.log.Info("stopped")
	}
	return err
}

// drain takes no more connections and waits for the requests that run.
func (g *Gateway) drain(ctx context.Context) error {
	return errors.Join(shutDown(ctx, g.redirect), shutDown(ctx, g.public), g.hijackers.wait(ctx))
}

// tell has those end that are still there: streams in a way that their clients can tell from a failure, then all.
func (g *Gateway) tell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, g.settings.DrainTimeout/cutShare/2)
	defer cancel()
	_ = g.backend.calls.Shutdown(ctx)
	g.cut(errDrained)
}

func shutDown(ctx context.Context, s *http.Server) error {
	if s == nil {
		return nil
	}
	return s.Shutdown(ctx)
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
