// Package otlp is the tracer that sends spans by OpenTelemetry's own protocol: to a collector, Jaeger, Tempo, or a service
// that takes it.
//
//	MICRO_TRACER=otlp MICRO_TRACER_ENDPOINT=http://collector:4318 ./program
//
// Spans are sent in batches, in the background: no call waits for it. What cannot be sent within the timeout is dropped; the
// log says when that begins, and how many were lost when it is over. The context travels by W3C's traceparent, tracestate
// and baggage. A redirect is not followed, because the headers are for the endpoint alone.
//
// Of OpenTelemetry's environment variables, OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say who the service is, and go
// before its own name. Those of the exporter, the sampler and the batches (OTEL_EXPORTER_…, OTEL_TRACES_…, OTEL_BSP_…) have
// no effect, so that there is one place for each setting; the log says so if one is set.
package otlp

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/plugmicro/micro/internal/otelsdk"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/tracer"
)

// Config is what --tracer-* and MICRO_TRACER_* set.
type Config struct {
	Protocol    string        `default:"http" help:"http (protobuf over HTTP) or grpc"`
	Endpoint    string        `help:"where spans are sent: host:port, http://… or https://…, for http with the path if it is not /v1/traces; default: 127.0.0.1:4318 for http, 127.0.0.1:4317 for grpc"`
	Headers     plugin.Secret `help:"headers of what is sent, as name=value,name=value; such as an API key"`
	Compression string        `default:"gzip" help:"gzip or none"`
	Timeout     time.Duration `default:"10s" help:"limit for sending one batch, attempts included"`
	TLS         plugin.TLS
	otelsdk.Sampling
	otelsdk.Batching
}

func init() {
	plugin.Register("otlp", New, plugin.Doc("OpenTelemetry's protocol, by HTTP or gRPC: collectors, Jaeger, Tempo, and others"))
}

var (
	protocols    = []string{"http", "grpc"}
	compressions = []string{"gzip", "none"}
)

// Validate is asked when the settings are loaded.
func (c Config) Validate() error {
	var errs []error
	if !slices.Contains(protocols, c.Protocol) {
		errs = append(errs, fmt.Errorf("protocol %q: want one of %q", c.Protocol, protocols))
	}
	if !slices.Contains(compressions, c.Compression) {
		errs = append(errs, fmt.Errorf("compression %q: want one of %q", c.Compression, compressions))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout %s: want more than 0", c.Timeout))
	}
	_, err := c.target()
	errs = append(errs, err)
	_, err = c.headers()
	return errors.Join(append(errs, err, c.Sampling.Validate(), c.Batching.Validate())...)
}

// withDefaults is for settings made in code.
func (c Config) withDefaults() Config {
	c.Protocol = cmp.Or(c.Protocol, "http")
	c.Compression = cmp.Or(c.Compression, "gzip")
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.Batching = c.Batching.WithDefaults()
	return c
}

// target is the endpoint taken apart.
type target struct {
	host   string // with a port
	path   string
	secure bool
}

// target reads the endpoint. It never shows what it could not read: it may be a password in there.
func (c Config) target() (target, error) {
	ports := map[string]string{"http": "4318", "grpc": "4317"}
	endpoint := cmp.Or(c.Endpoint, net.JoinHostPort("127.0.0.1", ports[c.Protocol]))
	secure := c.TLS.Enabled()
	if !strings.Contains(endpoint, "://") {
		endpoint = map[bool]string{false: "http://", true: "https://"}[secure] + endpoint
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return target{}, errors.New("endpoint: want host:port, http://host:port or https://host:port")
	case u.User != nil:
		return target{}, errors.New("endpoint: it has a user: send one by headers")
	case u.RawQuery != "" || u.Fragment != "":
		return target{}, errors.New("endpoint: it has a query or a fragment: send what is needed by headers")
	case u.Scheme == "http" && secure:
		return target{}, errors.New("endpoint: it begins with http://, but the tls options are set: write https://")
	case c.Protocol == "grpc" && strings.Trim(u.Path, "/") != "":
		return target{}, errors.New("endpoint: it has a path, which grpc has no use for")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return target{}, fmt.Errorf("endpoint: there is no port %s: want 1 to 65535", port)
		}
	}
	t := target{host: u.Host, path: cmp.Or(u.Path, "/v1/traces"), secure: u.Scheme == "https"}
	if u.Port() == "" {
		t.host = net.JoinHostPort(u.Hostname(), ports[c.Protocol])
	}
	return t, nil
}

// headers reads the pairs. What is wrong is said without showing any of it.
func (c Config) headers() (map[string]string, error) {
	headers := make(map[string]string)
	text := strings.TrimSpace(c.Headers.Reveal())
	if text == "" {
		return headers, nil
	}
	for i, pair := range strings.Split(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("headers: pair %d is none: write name=value,name=value", i+1)
		}
		headers[strings.ToLower(name)] = value
	}
	return headers, nil
}

// New opens the tracer for a service. It connects to nothing yet: a receiver that is away fails no start.
func New(env *plugin.Env, c Config) (tracer.Tracer, error) {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	warnOfVariables(env)
	exporter, err := newExporter(env.Context(), c)
	if err != nil {
		return nil, err
	}
	return otelsdk.New(env, otelsdk.Options{Exporter: exporter, Sampler: c.Sampler(), Batching: c.Batching, Timeout: c.Timeout})
}

// warnOfVariables tells who sets OpenTelemetry's variables that they are not asked.
func warnOfVariables(env *plugin.Env) {
	var names []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		for _, prefix := range []string{"OTEL_EXPORTER_OTLP_", "OTEL_TRACES_", "OTEL_BSP_"} {
			if strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
		}
	}
	if len(names) > 0 {
		slices.Sort(names)
		env.Logger().Warn("these variables have no effect: use --tracer-endpoint and so on, or MICRO_TRACER_ENDPOINT", "variables", names)
	}
}

// noRedirect makes a redirect the answer, which is an error then.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
