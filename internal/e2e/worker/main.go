// Worker is a service for tests with real processes: it notes every call that it runs in the file WORKER_LOG.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/server"
)

// Job is a call, with a name of its own.
type Job struct {
	Name string `json:"name"`
}

// Done says who did it.
type Done struct {
	By int `json:"by"`
}

// Work has the same endpoint twice: only Again may be retried after a lost connection.
type Work struct{ log *os.File }

// Once does a job.
func (w Work) Once(ctx context.Context, job *Job) (*Done, error) { return w.run("once", job) }

// Again does a job that may be done twice.
func (w Work) Again(ctx context.Context, job *Job) (*Done, error) { return w.run("again", job) }

// Slow takes a while, and does not care whether its caller still waits.
func (w Work) Slow(ctx context.Context, job *Job) (*Done, error) {
	if _, err := w.run("begun", job); err != nil {
		return nil, err
	}
	<-time.After(500 * time.Millisecond)
	return w.run("slow", job)
}

func (w Work) run(how string, job *Job) (*Done, error) {
	if _, err := fmt.Fprintln(w.log, how, job.Name); err != nil {
		return nil, err
	}
	return &Done{os.Getpid()}, nil
}

func main() {
	f, err := os.OpenFile(os.Getenv("WORKER_LOG"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	svc := micro.New("worker")
	svc.Handle(Work{f}, server.Idempotent("Work.Again"))
	if err := svc.Run(); err != nil {
		log.Fatal(err)
	}
}
