package gateway

import (
	"context"
	"net/http"
	"net/netip"
	"time"
)

// Info is what the gateway knows of a request. It belongs to the request: only the goroutine that serves it may use it.
type Info struct {
	ID     string    // of the request, in logs, errors and the header X-Request-Id
	Start  time.Time // when its head was read
	Host   string    // of the normal form, without the port
	Secure bool      // the client speaks TLS, to the gateway or to a trusted proxy before it

	// Client is who asks, as package clientip found out: the peer, or what trusted proxies say. It is unmapped and without
	// a zone. It is not valid if the proxies' word is malformed: whoever decides by it refuses the request then.
	Client netip.Addr

	// CrossOrigin says that pages of the request's Origin may use the gateway: a middleware knows them. Without it, what a
	// foreign page can send by itself is refused.
	CrossOrigin bool

	Route  string            // how logs and metrics name what the request is for; one of a few, never made of what a client sends
	Target *Target           // what is called; nil: what the path says
	Params map[string]string // of the path, as a route named them; fields of the request, if there is a Target

	// StreamError is how a stream ended that failed after its answer had begun, when the status was said already. Whoever
	// writes streams sets it, for logs, metrics and traces.
	StreamError *Problem

	metadata map[string]string
	guards   []func(service, endpoint string) error
}

// Target is an endpoint of a service, chosen by a route.
type Target struct {
	Service  string
	Endpoint string
	Version  string        // only nodes of this version; "" is any
	Timeout  time.Duration // of the call, or for opening the stream; 0: the gateway's
}

type infoKey struct{}

// With returns a request that carries info. The gateway calls it, and tests do.
func With(r *http.Request, info *Info) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), infoKey{}, info))
}

// Of returns what is known of r. For a request that did not come through a gateway it is an empty Info that nobody else sees.
func Of(r *http.Request) *Info { return FromContext(r.Context()) }

// FromContext is Of for the context of a request.
func FromContext(ctx context.Context) *Info {
	if info, ok := ctx.Value(infoKey{}).(*Info); ok {
		return info
	}
	return new(Info)
}

// SetMetadata gives the called service a pair beside the body, such as the user that a middleware has authenticated. It
// replaces what came under that key from the client.
func (i *Info) SetMetadata(key, value string) {
	if i.metadata == nil {
		i.metadata = make(map[string]string)
	}
	i.metadata[key] = value
}

// Metadata is what SetMetadata was given. It must not be changed.
func (i *Info) Metadata() map[string]string { return i.metadata }

// Guard has f asked before a service is called, whichever way led to it: there are several paths to one endpoint, and
// with /v1/rpc the body names it. An error of f, best a *Problem, refuses the request.
func (i *Info) Guard(f func(service, endpoint string) error) { i.guards = append(i.guards, f) }

// Admit asks all guards. The gateway calls it when it knows what the request is for.
func (i *Info) Admit(service, endpoint string) error {
	for _, f := range i.guards {
		if err := f(service, endpoint); err != nil {
			return err
		}
	}
	return nil
}
