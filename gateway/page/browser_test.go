package page_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/internal/servers"
)

func listenAgain(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// browser is one tab of a real browser that is looking at a page.
type browser struct {
	t   testing.TB
	ctx context.Context
	url string

	mu       sync.Mutex
	problems []string // of the console, exceptions, dialogs, and requests that leave the origin
}

// open starts a browser and shows the page at a place such as "#/plugins".
func (r *rig) open(at string) *browser {
	r.t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(servers.Chromium(r.t)), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(r.t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.WindowSize(1280, 860))
	ctx, cancel := context.WithTimeout(context.Background(), 3*soon)
	r.t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	r.t.Cleanup(cancel)
	b := &browser{t: r.t, url: r.url}
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(b.watch))
	r.t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the browser, so that it leaves nothing behind
		cancel()
	})
	b.ctx = ctx
	command(b, network.Enable, network.EnableParams{})
	command(b, log.Enable, cdp.Empty{})
	command(b, runtime.Enable, cdp.Empty{})
	b.run(chromedp.Navigate(r.url + "/" + at))
	return b
}

// watch notes what must not happen.
func (b *browser) watch(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, fmt.Sprintf("exception: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		b.problems = append(b.problems, "console: "+string(e.Type))
	case *log.EventEntryAdded:
		b.problems = append(b.problems, "log: "+e.Entry.Text+" "+e.Entry.URL)
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, b.url+"/") {
			b.problems = append(b.problems, "request elsewhere: "+e.Request.URL)
		}
	}
}

// clean holds that nothing happened that must not; but for what is expected.
func (b *browser) clean(expected ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
next:
	for _, p := range b.problems {
		for _, e := range expected {
			if strings.Contains(p, e) {
				continue next
			}
		}
		require.Fail(b.t, p)
	}
}

// command sends one of the protocol.
func command[P, R any](b *browser, c cdp.Command[P, R], params P) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, c, params)
	require.NoError(b.t, err)
}

func (b *browser) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, actions...))
}

// until waits for an expression to be true, or to be something.
func (b *browser) until(expression string) {
	b.t.Helper()
	often := time.NewTicker(10 * time.Millisecond)
	defer often.Stop()
	for start := time.Now(); !value[bool](b, "Boolean("+expression+")"); <-often.C {
		if time.Since(start) > soon {
			require.Fail(b.t, "not reached: "+expression, "the page says:\n%s\n%v", value[string](b, "document.body.innerText"), b.problems)
		}
	}
}

// sees waits for text to be visible.
func (b *browser) sees(text string) {
	b.t.Helper()
	b.until("document.body.innerText.includes(" + quote(text) + ")")
}

func quote(s string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`", "$", "\\$").Replace(s) + "`"
}

// value evaluates an expression.
func value[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	require.NoError(b.t, err, expression)
	return v
}

// press presses keys, as kb names them, wherever the focus is.
func (b *browser) press(keys string, modifiers ...chromedp.Modifier) {
	b.t.Helper()
	b.run(chromedp.KeyEvent(keys, chromedp.KeyModifiers(modifiers...)))
}

// The library's own queries are not used: they race with the events of the page.

// click clicks the middle of what a CSS selector finds first, with the mouse.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.clickOn("document.querySelector(" + quote(selector) + ")")
}

// clickOn is click for an expression.
func (b *browser) clickOn(element string) {
	b.t.Helper()
	b.until(element)
	at := value[struct{ X, Y float64 }](b, `((e) => { e.scrollIntoView({block: "center"}); const r = e.getBoundingClientRect();
		return {X: r.x + r.width / 2, Y: r.y + r.height / 2}; })(`+element+`)`)
	b.run(chromedp.MouseClickXY(at.X, at.Y))
}

// write types into what a CSS selector finds first, after what is there.
func (b *browser) write(selector, text string) {
	b.t.Helper()
	b.writeInto("document.querySelector("+quote(selector)+")", text)
}

// writeInto is write for an expression.
func (b *browser) writeInto(element, text string) {
	b.t.Helper()
	b.until(element)
	b.until(`((e) => { e.focus(); e.setSelectionRange(e.value.length, e.value.length); return document.activeElement === e; })(` + element + `)`)
	b.press(text)
}

// show shows another view, as a link does.
func (b *browser) show(at string) {
	b.t.Helper()
	b.run(chromedp.Navigate(b.url + "/" + at))
}

// size changes the window.
func (b *browser) size(width, height int64) {
	b.t.Helper()
	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
}
