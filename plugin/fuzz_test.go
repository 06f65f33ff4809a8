package plugin

import (
	"strings"
	"testing"
)

// FuzzLoad holds that no file, environment or command line makes Load panic, and that every problem is one line.
func FuzzLoad(f *testing.F) {
	f.Add("store: {plugin: disk, path: [a, b], labels: {a: b}, tls: {ca: x}}", "MICRO_STORE_TIMEOUT=5s\x00MICRO_STORE_TOKEN=x", "--store-cache\x00--x")
	f.Add("filter: [ip, log]\ngate: {filter: x}", "MICRO_FILTER_IP_ALLOW=a,b", "--gate-filter\x00ip")
	f.Add("a: &a [*a]\n<<: *a", "MICRO_=\x00MICRO", "--\x00-\x00=")
	f.Add("? [a]\n: {b: !!binary x}", "MICRO_STORE=", "-h=\x00--=")
	f.Add("store: []", "=", "--store=")
	f.Fuzz(func(t *testing.T, yaml, env, args string) {
		if strings.Contains(args, "-h") || strings.Contains(args, "file") || strings.Contains(args, "config") || strings.Contains(env, "FILE") {
			return // no help on stdout, and no files of the machine
		}
		path := writeFile(t, "x.yaml", yaml)
		l := NewLoader(testCatalog())
		l.Section("", &all{})
		if err := l.Parse(strings.Split(args, "\x00")); err != nil {
			t.Fatal(err)
		}
		s, err := l.Load(append(strings.Split(env, "\x00"), "MICRO_CONFIG="+path))
		if err == nil {
			_ = s.All()
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if strings.TrimSpace(line) == "" {
				t.Fatalf("an empty line in %q", err)
			}
		}
	})
}
