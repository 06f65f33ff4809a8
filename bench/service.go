package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry/local"
	"github.com/plugmicro/micro/transport/tcp"
)

// serviceRuns is how many services are started.
const serviceRuns = 15

// serviceRole is a service as users write it, with the defaults, that ends when its input does.
func serviceRole(name string) error {
	svc := micro.New(name, micro.WithLogger(slog.New(slog.DiscardHandler)), micro.WithAddress(loopback), micro.WithArgs())
	svc.Handle(Echo{})
	if err := svc.Start(context.Background()); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin)
	return svc.Stop(context.Background())
}

// measureStart takes the time from before a service process is started until its first answer has come.
func measureStart(_ *settings, r *report) error {
	dir, err := os.MkdirTemp("", "micro-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var took []float64
	for i := range serviceRuns {
		d, err := startToAnswer(dir, "bench-"+strconv.Itoa(i))
		if err != nil {
			return err
		}
		r.Starts = append(r.Starts, d)
		took = append(took, micros(d)/1e3)
	}
	mid := median(took)
	w := r.section("Start of a service process to its first answered call, ms")
	fmt.Fprintf(w, "median of %d\tfastest\tslowest\t\n%.1f\t%.1f\t%.1f\t\n", serviceRuns, mid, slices.Min(took), slices.Max(took))
	w.Flush()
	r.atMost("start of a service to its first answer, ms", mid, 100)
	return nil
}

func startToAnswer(dir, name string) (took time.Duration, err error) {
	reg, err := local.Open(dir, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	tr, err := tcp.New(&plugin.Env{}, tcp.Config{})
	if err != nil {
		return 0, err
	}
	c := client.New(reg, tr, client.Options{})
	defer func() { err = errors.Join(err, c.Close()) }()

	began := time.Now()
	p, err := start([]string{"MICRO_REGISTRY=local", "MICRO_REGISTRY_DIR=" + dir, "MICRO_TRANSPORT=tcp"}, "service", name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	body := make([]byte, 64)
	for {
		if _, err = client.Call[[]byte](ctx, c, name, "Echo.Bytes", &body); err == nil {
			return time.Since(began), nil
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("%s gave no answer: %w", name, err)
		}
		time.Sleep(time.Millisecond)
	}
}
