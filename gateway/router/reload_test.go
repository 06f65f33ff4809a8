package router

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// everything is an upstream of all kinds of requests.
func everything(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Server", name)
		switch r.URL.Path {
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 200 {
				if _, err := fmt.Fprintf(w, "data: %d\n\n", i); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
			}
		case "/ws":
			echoWebSocket(w, r)
		case "/upload":
			sum := sha256.New()
			if _, err := io.Copy(sum, r.Body); err == nil {
				fmt.Fprintf(w, "%x", sum.Sum(nil))
			}
		default:
			fmt.Fprint(w, "fine")
		}
	}
}

// TestThousandReloads changes the routes all the time while requests of all kinds are under way, none of which may fail. Every
// reload is one between requests: it waits until some have ended since the last one.
func TestThousandReloads(t *testing.T) {
	one, two := serve(t, everything("one")), serve(t, everything("two"))
	files := []string{
		to(one.URL),
		"upstreams: {shop: {url: ['" + one.URL + "', '" + two.URL + "'], health: {path: /ok, interval: 5ms}}}\nroutes: [{name: all, to: {upstream: shop}}]",
		"upstreams: {shop: {url: '" + two.URL + "', health: {path: /ok, interval: 5ms}}}\nroutes: [{name: other, to: {upstream: shop}, mirror: {url: '" + one.URL + "', fraction: 0.01}}]",
		thousand(50) + "- {name: all, to: [{url: '" + one.URL + "', weight: 3}, {url: '" + two.URL + "', rewrite: 1}]}\n", // refused
		thousand(50) + "- {name: all, to: [{url: '" + one.URL + "', weight: 3}, {url: '" + two.URL + "'}]}\n",
	}
	f := start(t, files[0])
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ended [4]atomic.Int64
	var load sync.WaitGroup
	defer load.Wait()
	defer cancel()
	problems := make(chan error, 100)
	run := func(n, kind int, once func(stop <-chan struct{}) error) {
		for range n {
			load.Go(func() {
				for ctx.Err() == nil {
					if err := once(ctx.Done()); err != nil {
						problems <- fmt.Errorf("kind %d: %w", kind, err)
						return
					}
					ended[kind].Add(1)
				}
			})
		}
	}
	run(4, 0, f.onePlain)
	run(1, 1, f.oneEvents)
	run(2, 2, f.oneUpload)
	run(2, 3, f.oneWebSocket(&ended[3]))

	requests := func() (n int64) {
		for i := range ended {
			n += ended[i].Load()
		}
		return n
	}
	refused := 0
	for i := range 1000 {
		before := requests()
		if err := f.router.load([]byte(files[i%len(files)])); err != nil {
			refused++
			require.ErrorContains(t, err, `unknown key "rewrite"`)
		}
		eventually(t, "requests go on", func() bool { return requests() > before || len(problems) > 0 })
		if len(problems) > 0 {
			require.NoError(t, <-problems)
		}
	}
	require.Equal(t, 200, refused)
	enough := [4]int64{}
	for i := range ended {
		enough[i] = ended[i].Load() + 1
	}
	eventually(t, "all kinds go on", func() bool {
		for i := range ended {
			if ended[i].Load() < enough[i] && len(problems) == 0 {
				return false
			}
		}
		return true
	})
	cancel()
	load.Wait()
	if len(problems) > 0 {
		require.NoError(t, <-problems)
	}
	t.Logf("ended well: %d plain requests, %d streams of events, %d uploads, %d messages by WebSocket", ended[0].Load(), ended[1].Load(), ended[2].Load(), ended[3].Load())
	require.Empty(t, strings.ReplaceAll(f.log.String(), "\n", ""), "nothing was wrong")
}

// fetch is one request, whose answer must be whole.
func (f *front) fetch(method, path string, body io.Reader) (string, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, f.URL+path, body)
	if err != nil {
		return "", err
	}
	res, err := f.client.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", res.Status, text)
	}
	return string(text), err
}

func (f *front) onePlain(<-chan struct{}) error {
	text, err := f.fetch("GET", "/plain", nil)
	if err == nil && text != "fine" {
		err = fmt.Errorf("answered %q", text)
	}
	return err
}

func (f *front) oneEvents(<-chan struct{}) error {
	text, err := f.fetch("GET", "/events", nil)
	if err == nil && strings.Count(text, "data: ") != 200 {
		err = fmt.Errorf("%d events", strings.Count(text, "data: "))
	}
	return err
}

func (f *front) oneUpload(<-chan struct{}) error {
	body := bytes.Repeat([]byte("upload"), 50000)
	text, err := f.fetch("POST", "/upload", io.MultiReader(bytes.NewReader(body)))
	if want := fmt.Sprintf("%x", sha256.Sum256(body)); err == nil && text != want {
		err = fmt.Errorf("arrived as %q", text)
	}
	return err
}

// oneWebSocket holds a connection over many reloads.
func (f *front) oneWebSocket(messages *atomic.Int64) func(<-chan struct{}) error {
	return func(stop <-chan struct{}) error {
		ctx := context.Background()
		c, _, err := websocket.Dial(ctx, f.URL+"/ws", nil)
		if err != nil {
			return err
		}
		defer c.CloseNow()
		for i := range 2000 {
			select {
			case <-stop:
				return c.Close(websocket.StatusNormalClosure, "")
			default:
			}
			want := fmt.Sprint("message ", i)
			if err := c.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
				return err
			}
			if _, got, err := c.Read(ctx); err != nil || string(got) != want {
				return fmt.Errorf("%q came back as %q: %w", want, got, err)
			}
			messages.Add(1)
		}
		return c.Close(websocket.StatusNormalClosure, "")
	}
}

// TestOldRoutesEndWithTheirRequests keeps a stream on routes that are gone.
func TestOldRoutesEndWithTheirRequests(t *testing.T) {
	next := make(chan string)
	old := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		for line := range next {
			_, _ = io.WriteString(w, line+"\n")
			_ = http.NewResponseController(w).Flush()
		}
	})
	f := start(t, to(old.URL))
	r, err := http.NewRequestWithContext(t.Context(), "GET", f.URL, nil)
	require.NoError(t, err)
	res, err := f.client.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	br := bufio.NewReader(res.Body)
	for i := range 10 {
		f.reload(t, "routes: [{name: none, to: {respond: {status: 204}}}]")
		next <- fmt.Sprint(i)
		line, err := br.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i, "\n"), line)
		other, _ := f.get(t, "/")
		require.Equal(t, 204, other.StatusCode)
	}
	close(next)
	_, err = br.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}

// TestWhatIsKnownOfServersIsKept over a reload that leaves their upstream, or changes which there are.
func TestWhatIsKnownOfServersIsKept(t *testing.T) {
	dead, up := unused(t), serve(t, says("up"))
	file := func(urls, routes string) string {
		return "upstreams: {shop: {url: [" + urls + "], breaker: {failures: 1, open: 1h}}}\nroutes: [{name: all, to: {upstream: shop}}" + routes + "]"
	}
	both := "'http://" + dead + "', '" + up.URL + "'"
	f := start(t, file(both, ""))
	failing := func() int { return f.router.table.Load().routes[0].targets[0].pool.states()["failing"] }
	eventually(t, "it is found out", func() bool { f.get(t, "/"); return failing() == 1 })
	f.reload(t, file(both, ", {name: more, to: {respond: {}}}"))
	require.Equal(t, 1, failing())
	f.reload(t, file(both+", 'http://"+unused(t)+"'", ""))
	require.Equal(t, 1, failing())
	f.reload(t, strings.Replace(file(both, ""), "1h", "2h", 1))
	require.Equal(t, 0, failing(), "it is judged in another way")
}
