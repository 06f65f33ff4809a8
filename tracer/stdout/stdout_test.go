package stdout

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/internal/otelsdk"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/tracer"
)

func TestMain(m *testing.M) {
	if os.Getenv("STDOUT_PROGRAM") != "" {
		program()
		return
	}
	goleak.VerifyTestMain(m)
}

// program is a process that chose the plugin, and makes two spans.
func program() {
	settings, err := plugin.NewLoader(plugin.Linked).Load(os.Environ())
	if err != nil {
		panic(err)
	}
	host := settings.Open(context.Background(), nil, plugin.OpenedBy(plugin.Program{Name: "shop"}))
	t, err := plugin.Open[tracer.Tracer](host)
	if err != nil {
		panic(err)
	}
	ctx, outer := t.Provider().Tracer("test").Start(context.Background(), "outer")
	_, inner := t.Provider().Tracer("test").Start(ctx, "inner")
	inner.End()
	outer.End()
	if err := host.Close(); err != nil {
		panic(err)
	}
}

func TestOneLineASpan(t *testing.T) {
	for output, other := range map[string]string{"stderr": "stdout", "stdout": "stderr", "": "stdout"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = []string{"STDOUT_PROGRAM=1", "MICRO_TRACER=stdout", "MICRO_TRACER_OUTPUT=" + output}
		files := map[string]*os.File{}
		for _, name := range []string{"stdout", "stderr"} {
			f, err := os.Create(t.TempDir() + "/" + name)
			require.NoError(t, err)
			defer f.Close()
			files[name] = f
		}
		cmd.Stdout, cmd.Stderr = files["stdout"], files["stderr"]
		require.NoError(t, cmd.Run())
		if output == "" {
			output = "stderr"
		}
		require.Empty(t, lines(t, files[other]))
		got := lines(t, files[output])
		require.Len(t, got, 2)
		var spans [2]struct {
			Name        string
			SpanContext struct{ TraceID, SpanID string }
			Parent      struct{ SpanID string }
			Resource    []struct {
				Key   string
				Value struct{ Value any }
			}
		}
		for i, line := range got {
			require.NoError(t, json.Unmarshal([]byte(line), &spans[i]), line)
		}
		require.Equal(t, "inner", spans[0].Name)
		require.Equal(t, "outer", spans[1].Name)
		require.Equal(t, spans[1].SpanContext.SpanID, spans[0].Parent.SpanID)
		require.Equal(t, spans[1].SpanContext.TraceID, spans[0].SpanContext.TraceID)
		var service any
		for _, a := range spans[0].Resource {
			if a.Key == "service.name" {
				service = a.Value.Value
			}
		}
		require.Equal(t, "shop", service)
	}
}

func lines(t *testing.T, f *os.File) []string {
	_, err := f.Seek(0, io.SeekStart)
	require.NoError(t, err)
	var list []string
	for s := bufio.NewScanner(f); s.Scan(); {
		list = append(list, s.Text())
	}
	return list
}

// TestNobodyReads: a pipe that is full holds up nobody but the printing.
func TestNobodyReads(t *testing.T) {
	r, w := io.Pipe()
	tr, err := open(&plugin.Env{}, Config{Sampling: otelsdk.Sampling{SampleRatio: 1}}, w)
	require.NoError(t, err)
	const spans = 10_000
	for range spans {
		_, span := tr.Provider().Tracer("test").Start(t.Context(), "work")
		span.End()
	}
	require.Positive(t, tr.(*otelsdk.Tracer).Dropped())
	require.NoError(t, r.CloseWithError(io.ErrClosedPipe))
	require.NoError(t, tr.Close())
	require.EqualValues(t, spans, tr.(*otelsdk.Tracer).Dropped())
}

func TestSettings(t *testing.T) {
	require.ErrorContains(t, Config{Output: "stdoutt"}.Validate(), `output "stdoutt": want stderr or stdout`)
	require.ErrorContains(t, Config{Sampling: otelsdk.Sampling{SampleRatio: 2}}.Validate(), "sample-ratio")
	_, err := New(&plugin.Env{}, Config{Output: "x"})
	require.Error(t, err)
	tr, err := New(&plugin.Env{}, Config{})
	require.NoError(t, err)
	require.NoError(t, tr.Close())
}
