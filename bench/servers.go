package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// serverBenchmarks are those of the plugins, side by side with the client library used directly, on a server that they
// start. They stand beside the plugins, as Go benchmarks.
var serverBenchmarks = []struct {
	plugin, benchmarks, time string
}{
	{"broker/kafka", "LonePublish|Publish|Consume", "3s"},
	{"broker/rabbitmq", ".", "5s"},
	{"transport/rabbitmq", "Call$", "5s"},
}

// metrics are what benchmarks reported: by "broker/kafka Publish/plugin messages/s".
type metrics map[string]float64

func measureServers(s *settings, r *report) error {
	all := metrics{}
	for _, b := range serverBenchmarks {
		fmt.Fprintf(r.out, "\n%s, on a real server\n", b.plugin)
		m, err := runBenchmarks(r, b.plugin, b.benchmarks, b.time)
		if err != nil {
			return fmt.Errorf("is the server installed (make servers)? %w", err)
		}
		maps.Copy(all, m)
	}
	r.Servers = all
	return all.check(r)
}

// runBenchmarks runs and prints those of a package of Micro.
func runBenchmarks(r *report, pkg, benchmarks, time string) (metrics, error) {
	cmd := exec.Command("go", "test", "-run=^$", "-bench="+benchmarks, "-benchtime="+time, "-timeout=10m", "./"+pkg)
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	lines := benchmarkLine.FindAllStringSubmatch(string(out), -1)
	if err != nil || len(lines) == 0 {
		return nil, fmt.Errorf("%s: %w: %s", pkg, cmp.Or(err, errors.New("no benchmarks ran")), bytes.TrimSpace(out))
	}
	m := metrics{}
	for _, line := range lines {
		fmt.Fprintln(r.out, "  "+strings.TrimSpace(line[0]))
		m.add(pkg+" "+line[1], strings.Fields(line[2]))
	}
	return m, nil
}

var benchmarkLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)

// add takes values and their units in turn.
func (m metrics) add(name string, fields []string) {
	for pair := range slices.Chunk(fields, 2) {
		if v, err := strconv.ParseFloat(pair[0], 64); err == nil && len(pair) == 2 {
			m[name+" "+pair[1]] = v
		}
	}
}

func (m metrics) check(r *report) error {
	var missing error
	get := func(name string) float64 {
		v, ok := m[name]
		if !ok {
			missing = errors.Join(missing, fmt.Errorf("the benchmarks do not report %q", name))
		}
		return v
	}
	const perSecond = " messages/s"
	for _, what := range []string{"Publish", "PublishMany", "Consume"} {
		best := 0.0
		for name, v := range m {
			if rest, ok := strings.CutPrefix(name, "broker/kafka "+what+"/"); ok && strings.HasSuffix(name, perSecond) && !strings.HasPrefix(rest, "plugin") {
				best = max(best, v)
			}
		}
		r.atLeast("broker/kafka: "+what+", messages/s over the best of kafka-go directly", get("broker/kafka "+what+"/plugin"+perSecond)/best, 0.9)
	}
	r.atMost("broker/kafka: what a lone publish adds to kafka-go's, µs", get("broker/kafka LonePublish added-us"), 50)
	r.atMost("broker/rabbitmq: what a lone publish adds to amqp091's, µs",
		get("broker/rabbitmq Publish us/plugin")-get("broker/rabbitmq Publish us/bare"), 50)
	r.atLeast("broker/rabbitmq: publish and consume, speed over amqp091 directly", get("broker/rabbitmq PublishAndConsume speed/bare"), 0.9)
	r.atMost("transport/rabbitmq: a call over a bare round trip by amqp091", get("transport/rabbitmq Call micro/bare"), 1.2)
	return missing
}
