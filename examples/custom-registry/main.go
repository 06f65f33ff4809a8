// Custom-registry implements registry.Registry itself, for services at fixed addresses, and passes it in as an option.
//
//	go run ./examples/custom-registry
package main

import (
	"context"
	"fmt"
	"log"
	"sync"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/registry"
)

// static remembers the services of this process; a real one would know others from the start.
type static struct {
	changes registry.Fanout // serves Watch

	mu       sync.Mutex
	services map[string]*registry.Service
}

var _ registry.Registry = (*static)(nil)

func (r *static) Register(s *registry.Service, _ ...registry.RegisterOption) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.services[s.Name] = s.Clone()
	r.changes.Publish(&registry.Result{Action: registry.Create, Service: s})
	return nil
}

func (r *static) Deregister(s *registry.Service) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.services, s.Name)
	r.changes.Publish(&registry.Result{Action: registry.Delete, Service: s})
	return nil
}

func (r *static) GetService(name string) ([]*registry.Service, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.services[name]
	if s == nil {
		return nil, registry.ErrNotFound
	}
	return []*registry.Service{s.Clone()}, nil
}

func (r *static) ListServices() ([]*registry.Service, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*registry.Service
	for name := range r.services {
		list = append(list, &registry.Service{Name: name})
	}
	return list, nil
}

func (r *static) Watch() (registry.Watcher, error) { return r.changes.Watch() }

func (r *static) String() string { return "static" }

// Clock tells what it was made with.
type Clock struct{ time string }

// TimeRequest has no fields.
type TimeRequest struct{}

// TimeResponse is what the clock shows.
type TimeResponse struct {
	Time string `json:"time"`
}

// Now answers the time.
func (c Clock) Now(ctx context.Context, _ *TimeRequest) (*TimeResponse, error) {
	return &TimeResponse{c.time}, nil
}

func main() {
	svc := micro.New("clock", micro.WithRegistry(&static{services: make(map[string]*registry.Service)}))
	svc.Handle(Clock{"twelve o'clock"})
	err := svc.Do(func(ctx context.Context) error {
		rsp, err := client.Call[TimeResponse](ctx, svc.Client(), "clock", "Clock.Now", &TimeRequest{})
		if err != nil {
			return err
		}
		fmt.Println("It is", rsp.Time)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}
