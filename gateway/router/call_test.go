package router

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/gateway/directory"
	"github.com/plugmicro/micro/gateway/rpc"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/registry/memory"
	service "github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/transport/tcp"
)

type Words struct{}

type phrase struct{ Text string }

func (Words) Echo(_ context.Context, w *phrase) (*phrase, error) { return w, nil }

func (Words) Count(_ context.Context, in *service.Receiver[phrase]) (*phrase, error) {
	all := new(phrase)
	for one, err := range in.All() {
		if err != nil {
			return nil, err
		}
		all.Text += one.Text
	}
	return all, nil
}

// calls starts a service, and what calls it.
func calls(t *testing.T) http.HandlerFunc {
	quiet := slog.New(slog.DiscardHandler)
	tr, err := tcp.New(new(plugin.Env), tcp.Config{})
	require.NoError(t, err)
	s := service.New("words", service.Options{Logger: quiet})
	require.NoError(t, s.Handle(Words{}))
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	store := memory.NewStore()
	require.NoError(t, store.Open().Register(&registry.Service{Name: "words", Version: "1", Endpoints: s.Endpoints(),
		Nodes: []*registry.Node{{ID: "words-1", Address: l.Addr()}}}))
	c := client.New(store.Open(), tr, client.Options{Logger: quiet})
	d := directory.Follow(store.Open(), quiet)
	require.NoError(t, d.Await(t.Context()))
	h := rpc.New(c, d, rpc.Options{Logger: quiet})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, h.Shutdown(ctx))
		require.NoError(t, d.Close())
		require.NoError(t, c.Close())
		require.NoError(t, s.Shutdown(ctx))
		<-served
	})
	return h.ServeHTTP
}

// TestMaxBodyOfCalls: who says how large a body may be says it of what becomes a call, too.
func TestMaxBodyOfCalls(t *testing.T) {
	f := start(t, `routes:
- {name: echo, match: {path: /echo}, max_body: 100B, to: {service: words, endpoint: Words.Echo}}
- {name: count, match: {path: /count}, max_body: 100B, to: {service: words, endpoint: Words.Count}}
- {name: any, match: {path: /any}, to: {service: words, endpoint: Words.Echo}}
`, func(s *settings) { s.next = calls(t) })
	message := func(n int) string { return `{"Text":"` + strings.Repeat("x", n) + `"}` }
	for name, c := range map[string]struct {
		path, body string
		want       int
	}{
		"small":          {"/echo", message(50), 200},
		"as long as all": {"/echo", message(89), 200},
		"one more":       {"/echo", message(90), 413},
		"large":          {"/echo", message(300 << 10), 413},
		"a small stream": {"/count", message(20) + message(20), 200},
		"a long stream":  {"/count", strings.Repeat(message(20), 1000), 413},
		"without limit":  {"/any", message(300 << 10), 200},
	} {
		for how, body := range map[string]io.Reader{"of known length": strings.NewReader(c.body), "chunked": io.MultiReader(strings.NewReader(c.body))} {
			t.Run(name+" "+how, func(t *testing.T) {
				kind := "application/json"
				if c.path == "/count" {
					kind = "application/x-ndjson"
				}
				res, text := f.do(t, "POST", c.path, body, "Content-Type", kind)
				require.Equal(t, c.want, res.StatusCode, text)
				if c.want == 413 {
					require.Contains(t, text, "the body is larger than 100 bytes")
				} else {
					require.Contains(t, text, "xxx")
				}
			})
		}
	}
}
