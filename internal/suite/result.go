package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// Env is the environment variable that names the folder for results, by an absolute path; the folder exists.
const Env = "MICRO_SUITE_RESULTS"

// NotTried is the value of a Claim about a fault that the run could not bring about.
const NotTried = "not tried"

// Result is what one run of a suite has shown.
type Result struct {
	Kind     string            `json:"kind"`
	Plugin   string            `json:"plugin"`
	Server   string            `json:"server,omitempty"` // "Consul 1.20.1"; empty: it needs none
	Run      string            `json:"run"`              // the name of the Go test
	Claims   []Claim           `json:"claims"`
	Tests    []Test            `json:"tests"`
	Measured map[string]string `json:"measured,omitempty"`
}

// Claim is one capability of a plugin.
type Claim struct {
	Capability string `json:"capability"`
	Value      string `json:"value"`
}

// Test is one that passed, or was skipped for want of a capability.
type Test struct {
	Name    string `json:"name"`
	Skipped string `json:"skipped,omitempty"`
}

// save writes r to its file, unless that says the same already: go test takes a run from its cache only if the files that
// it read stayed as they were. Measurements do not count, they are never the same.
func (r Result) save() error {
	dir := os.Getenv(Env)
	if dir == "" {
		return nil
	}
	file := filepath.Join(dir, strings.ReplaceAll(fmt.Sprintf("%s-%s-%s.json", r.Kind, r.Plugin, r.Run), "/", "-"))
	old, err := load(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	old.Measured = r.Measured
	if err == nil && reflect.DeepEqual(old, r) {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// Load returns what is in the folder, sorted by kind, plugin and run.
func Load(dir string) ([]Result, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []Result
	for _, file := range files {
		r, err := load(file)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func load(file string) (r Result, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}
