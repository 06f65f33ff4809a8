package router

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/plugmicro/micro/gateway"
)

// segment is one part of a path that a template describes, between slashes.
type segment struct {
	text  string // the name, if it is a parameter
	param bool
	rest  bool // the parameter takes all that follows, slashes too
}

var paramName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// parseTemplate takes /users/{id} and /files/{path...} apart.
func parseTemplate(text string) ([]segment, error) {
	if err := checkPath(text); err != nil {
		return nil, err
	}
	var segments []segment
	names := make(map[string]bool)
	for s := range strings.SplitSeq(text[1:], "/") {
		if len(segments) > 0 && segments[len(segments)-1].rest {
			return nil, errors.New("a parameter with ... is the last part of a template")
		}
		seg := segment{text: s}
		if strings.ContainsAny(s, "{}") {
			name, ok := strings.CutPrefix(s, "{")
			name, ok2 := strings.CutSuffix(name, "}")
			name, seg.rest = strings.CutSuffix(name, "...")
			switch {
			case !ok || !ok2 || !paramName.MatchString(name):
				return nil, fmt.Errorf("%q is no parameter: write {name} or {name...} between two slashes", s)
			case names[name]:
				return nil, fmt.Errorf("the parameter {%s} is there twice", name)
			}
			if err := checkParam(name); err != nil {
				return nil, err
			}
			names[name] = true
			seg.text, seg.param = name, true
		}
		segments = append(segments, seg)
	}
	return segments, nil
}

func checkParam(name string) error {
	if slices.Contains(builtin, name) {
		return fmt.Errorf("{%s} cannot be a parameter: it is the %s of the request", name, name)
	}
	return nil
}

// checkPath says what is wrong with a path in the file: it is written as it is matched, decoded and in normal form.
func checkPath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("the path %q must begin with a slash", p)
	case strings.ContainsAny(p, `%?#\`):
		return fmt.Errorf("the path %q has one of %% ? # \\: write it decoded, without a query", p)
	case !isNormal(p):
		return fmt.Errorf(`the path %q is never asked for: "//", "/./", "/../" and control characters do not get here`, p)
	}
	return nil
}

// isNormal says whether p is a path as gateway.Prepare leaves it.
func isNormal(p string) bool {
	if !strings.HasPrefix(p, "/") || !utf8.ValidString(p) {
		return false
	}
	for i := range len(p) {
		if p[i] < ' ' || p[i] == 0x7f || p[i] == '\\' {
			return false
		}
	}
	for i, s := range allSegments(p) {
		if s == "." || s == ".." || (s == "" && i < len(p)) {
			return false
		}
	}
	return true
}

// allSegments yields the segments of a path, each with where it ends.
func allSegments(p string) func(func(int, string) bool) {
	return func(yield func(int, string) bool) {
		for start := 1; start <= len(p); {
			end := len(p)
			if i := strings.IndexByte(p[start:], '/'); i >= 0 {
				end = start + i
			}
			if !yield(end, p[start:end]) {
				return
			}
			start = end + 1
		}
	}
}

// params reads the parameters of a path that the template matches.
func params(segments []segment, path string) map[string]string {
	values := make(map[string]string, 2)
	rest := path[1:]
	for _, seg := range segments {
		if seg.rest {
			values[seg.text] = rest
			break
		}
		part, after, _ := strings.Cut(rest, "/")
		if seg.param {
			values[seg.text] = part
		}
		rest = after
	}
	return values
}

// What a pattern may name beside the parameters.
var builtin = []string{"host", "path"}

// pattern is text with {names} in it.
type pattern struct {
	text  string
	parts []part
}

type part struct {
	text string
	name bool
}

var patternName = regexp.MustCompile(`\{([^{}]*)\}`)

// parsePattern checks that all names are known.
func parsePattern(text string, names []string) (*pattern, error) {
	p := &pattern{text: text}
	at := 0
	for _, m := range patternName.FindAllStringSubmatchIndex(text, -1) {
		name := text[m[2]:m[3]]
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("{%s} is no parameter of this route: %s", name, known(names))
		}
		p.add(text[at:m[0]], false)
		p.add(name, true)
		at = m[1]
	}
	p.add(text[at:], false)
	for _, part := range p.parts {
		if !part.name && strings.ContainsAny(part.text, "{}") {
			return nil, fmt.Errorf("%q has a brace without its other", text)
		}
	}
	return p, nil
}

func known(names []string) string {
	if len(names) == 0 {
		return "it has none"
	}
	return "known are " + strings.Join(names, ", ")
}

func (p *pattern) add(text string, name bool) {
	if text != "" {
		p.parts = append(p.parts, part{text, name})
	}
}

func (p *pattern) expand(value func(name string) string) string {
	if len(p.parts) == 1 && !p.parts[0].name {
		return p.text
	}
	var b strings.Builder
	for _, part := range p.parts {
		if part.name {
			b.WriteString(value(part.text))
		} else {
			b.WriteString(part.text)
		}
	}
	return b.String()
}

// normal makes one slash of several, which come of joining; what climbs or is no path otherwise is refused.
func normal(p string) (string, error) {
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	if !isNormal(p) {
		return "", gateway.NewProblem(400, "the path cannot be rewritten: it would not be a plain path any more")
	}
	return p, nil
}

// setPath has u forward p, a path in normal form, encoded as gateway.Prepare does it.
func setPath(u *url.URL, p string) {
	u.Path, u.RawPath = p, ""
	if strings.IndexByte(p, ';') >= 0 {
		u.RawPath = strings.ReplaceAll(u.EscapedPath(), ";", "%3B")
	}
}
