package yamlfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// isJSON says whether data is an object of JSON, and not only YAML that begins like one.
func isJSON(data []byte) bool {
	data = bytes.TrimSpace(data)
	return len(data) > 0 && data[0] == '{' && json.Valid(data)
}

// jsonReader makes nodes of YAML from valid JSON. YAML takes most of it as it is, but no tabs, no surrogates (\ud83d\ude00) and
// no keys of more than 1,024 bytes.
type jsonReader struct {
	data    []byte
	decoder *json.Decoder
	line    int // of the last token
	counted int // bytes whose lines are in line
}

func readJSON(data []byte) *yaml.Node {
	r := &jsonReader{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), line: 1}
	r.decoder.UseNumber()
	return r.node()
}

// node reads a value. Of an object it has the keys as they are written, those that are there twice included.
func (r *jsonReader) node() *yaml.Node {
	token := r.token()
	switch v := token.(type) {
	case json.Delim:
		return r.collection(v)
	case string:
		return r.scalar("!!str", v)
	case json.Number:
		return r.scalar("!!float", v.String())
	case bool:
		return r.scalar("!!bool", strconv.FormatBool(v))
	}
	return r.scalar("!!null", "null")
}

func (r *jsonReader) collection(open json.Delim) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: r.line}
	if open == '[' {
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
	}
	for r.decoder.More() {
		n.Content = append(n.Content, r.node())
	}
	r.token()
	return n
}

func (r *jsonReader) scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value, Line: r.line}
}

func (r *jsonReader) token() json.Token {
	token, err := r.decoder.Token()
	if err != nil {
		panic(fmt.Sprintf("yamlfile: valid JSON that cannot be read: %v", err))
	}
	end := int(r.decoder.InputOffset())
	r.line += bytes.Count(r.data[r.counted:end], []byte("\n"))
	r.counted = end
	return token
}
