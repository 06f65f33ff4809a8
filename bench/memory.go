package main

import (
	"errors"
	"fmt"
)

// memoryResult is what both processes of micro held after a fifth of the calls, and after all of them.
type memoryResult struct {
	Calls                   int
	ClientEarly, ClientLate footprint
	ServerEarly, ServerLate footprint
}

func measureMemory(s *settings, r *report) (err error) {
	p, err := startPair(contenderNamed(microFunc), s.profiles)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	m := &memoryResult{Calls: s.calls}
	early := s.calls / 5
	if err := p.hold(early, &m.ClientEarly, &m.ServerEarly); err != nil {
		return err
	}
	if err := p.hold(s.calls-early, &m.ClientLate, &m.ServerLate); err != nil {
		return err
	}
	r.Memory = m
	w := r.section(fmt.Sprintf("Memory after %d and after %d calls of 64 bytes, 64 callers, in KiB", early, s.calls))
	fmt.Fprintln(w, "\theap\theap later\tRSS\tRSS later\tgoroutines\tgoroutines later\t")
	print := func(name string, early, late footprint) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", name, early.Heap>>10, late.Heap>>10, early.RSS>>10, late.RSS>>10,
			early.Goroutines, late.Goroutines)
		r.atMost(fmt.Sprintf("memory: growth of the heap of the %s, MiB", name), mebibytes(late.Heap, early.Heap), 1)
		r.atMost(fmt.Sprintf("memory: growth of the RSS of the %s, MiB", name), mebibytes(late.RSS, early.RSS), 4)
	}
	print("client", m.ClientEarly, m.ClientLate)
	print("server", m.ServerEarly, m.ServerLate)
	w.Flush()
	return nil
}

// hold makes calls, and then looks what the processes hold.
func (p *pair) hold(calls int, client, server *footprint) error {
	if _, err := p.client.ask(question{Load: &load{Callers: maxCallers, Size: 64, Calls: calls}}); err != nil {
		return err
	}
	for side, m := range map[*process]*footprint{p.client: client, p.server: server} {
		a, err := side.ask(question{Memory: true})
		if err != nil {
			return err
		}
		*m = *a.Memory
	}
	return nil
}

func mebibytes(late, early uint64) float64 { return (float64(late) - float64(early)) / (1 << 20) }
