// Package yamlfile reads files that people write, in YAML or JSON, for plugins that have more to be told than settings hold.
// It finds all that is wrong with a file at once, each mistake with file and line:
//
//	err := yamlfile.Read(name, data, "write allow or deny", func(f *yamlfile.File, root *yaml.Node) {
//		f.Mapping(root, yamlfile.Fields{"allow": f.Texts(&allow, check), "limit": f.Int(&limit, 1, 100)})
//	})
//	return yamlfile.Shorten(err, 20)
package yamlfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// File collects what is wrong with a file while it is read. It is for one goroutine.
type File struct {
	name    string
	wrong   mistakes
	pending []func()
}

// Read calls read with what the one document of a file has at its top, and returns all that was told by Fail, in the order of
// lines. An empty file is refused: what to write instead is for its error.
func Read(name string, data []byte, instead string, read func(f *File, root *yaml.Node)) error {
	root, err := parse(name, data, instead)
	if err != nil {
		return err
	}
	f := &File{name: name}
	read(f, root)
	for _, check := range f.pending {
		check()
	}
	if len(f.wrong) == 0 {
		return nil
	}
	slices.SortStableFunc(f.wrong, func(a, b mistake) int { return cmp.Compare(a.line, b.line) })
	return f.wrong
}

// parse returns what the document has at its top.
func parse(name string, data []byte, instead string) (*yaml.Node, error) {
	if isJSON(data) {
		return readJSON(data), nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF) || err == nil && len(document.Content) == 0:
		return nil, fmt.Errorf("%s:1: it is empty: %s", name, instead)
	case err != nil:
		return nil, fmt.Errorf("%s:%s", name, lineFirst(err))
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, fmt.Errorf("%s:%d: a file has one document: leave one", name, second.Line)
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s:%s", name, lineFirst(err))
	}
	return document.Content[0], nil
}

var parserLine = regexp.MustCompile(`^yaml: line (\d+): `)

// lineFirst is an error of the YAML parser, which leaves out that it is in the first line.
func lineFirst(err error) string {
	if text := err.Error(); parserLine.MatchString(text) {
		return parserLine.ReplaceAllString(text, "$1: ")
	}
	return "1: " + strings.TrimPrefix(err.Error(), "yaml: ")
}

// Fail tells a mistake at n.
func (f *File) Fail(n *yaml.Node, format string, args ...any) {
	f.wrong = append(f.wrong, mistake{f.name, n.Line, fmt.Sprintf(format, args...)})
}

// Failed is how many mistakes were told.
func (f *File) Failed() int { return len(f.wrong) }

// Later has check called when the whole file has been read.
func (f *File) Later(check func()) { f.pending = append(f.pending, check) }

// mistakes are all that is wrong with a file.
type mistakes []mistake

type mistake struct {
	file string
	line int
	text string
}

// Error implements error.
func (m mistakes) Error() string { return m.first(len(m)) }

func (m mistakes) first(n int) string {
	var b strings.Builder
	for i, mistake := range m {
		if i == n {
			fmt.Fprintf(&b, "\n%s: and %d more", mistake.file, len(m)-n)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d: %s", mistake.file, mistake.line, mistake.text)
	}
	return b.String()
}

// Shorten leaves the first most mistakes of an error of Read, and says how many more there are. Other errors stay as they are.
func Shorten(err error, most int) error {
	if all := mistakes(nil); errors.As(err, &all) {
		return errors.New(all.first(most))
	}
	return err
}
