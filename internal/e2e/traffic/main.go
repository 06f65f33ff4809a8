// Traffic is the greeter's caller, or a second subscriber to its events, for tests that hurt the servers between them. It
// notes what it sees in the file TRAFFIC_LOG, a line each: the time in ms, what, and its text.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/examples/greeter/api"
)

// notes is the log. Lines are written at once and whole.
type notes struct{ file *os.File }

func (n notes) add(what, text string) {
	line := fmt.Sprintln(time.Now().UnixMilli(), what, strings.ReplaceAll(text, "\n", "; "))
	if _, err := n.file.WriteString(line); err != nil {
		log.Fatal(err)
	}
}

// call calls until ctx ends.
func (n notes) call(ctx context.Context, c *client.Client) {
	for every := time.NewTicker(5 * time.Millisecond); ctx.Err() == nil; <-every.C {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := client.Call[api.HelloResponse](ctx, c, "greeter", "Greeter.Hello", &api.HelloRequest{Name: "Ada"})
		cancel()
		if err != nil {
			n.add("call-failed", err.Error())
			continue
		}
		n.add("called", "")
	}
}

// publish publishes events with numbers as names, each once, until ctx ends.
func (n notes) publish(ctx context.Context, svc *micro.Service) {
	every := time.NewTicker(2 * time.Millisecond)
	for i := 0; ctx.Err() == nil; i++ {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := svc.Publish(ctx, api.Greetings, &api.Greeting{Name: strconv.Itoa(i)})
		cancel()
		if err != nil {
			n.add("publish-failed", err.Error())
		} else {
			n.add("published", strconv.Itoa(i))
		}
		<-every.C
	}
}

func main() {
	file, err := os.OpenFile(os.Getenv("TRAFFIC_LOG"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	n := notes{file}
	svc := micro.New("traffic")
	if os.Getenv("TRAFFIC_ROLE") == "subscriber" {
		svc.Subscribe(api.Greetings, func(ctx context.Context, event *api.Greeting) error {
			n.add("event", event.Name)
			return nil
		}, broker.Group("audit"))
		err = svc.Run()
	} else {
		err = svc.Do(func(ctx context.Context) error {
			var all sync.WaitGroup
			all.Go(func() { n.call(ctx, svc.Client()) })
			all.Go(func() { n.publish(ctx, svc) })
			all.Wait()
			return nil
		})
	}
	if err != nil {
		log.Fatal(err)
	}
}
