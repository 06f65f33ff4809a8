package consul

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/plugmicro/micro/registry"
)

// Limits of Consul for the Meta of a service.
const (
	maxPairs = 64
	maxKey   = 128
	maxValue = 512
)

const (
	metaStamp   = "micro"  // key of a digest of the whole registration
	metaChunk   = "micro-" // keys of the packed node: micro-0, micro-1, …
	metaVersion = "version"
	maxChunks   = maxPairs - 1
	maxPacked   = maxChunks * maxValue / 4 * 3 // bytes, before base64
	maxUnpacked = 8 * registry.MaxSize         // bytes of JSON: it writes one byte as six at worst
)

// escape writes a text with characters that are safe in names, paths and filters of Consul. IDs are compared by Consul
// without regard to case: there, upper case is not safe.
func escape(s string, lower bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c == '-', c == '.' && i > 0, c >= 'A' && c <= 'Z' && !lower:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "~%02x", c)
		}
	}
	return b.String()
}

// unescape is the opposite of escape. It fails on what that would not have written.
func unescape(s string, lower bool) (string, bool) {
	plain, rest, _ := strings.Cut(s, "~")
	b := []byte(plain)
	if len(plain) < len(s) {
		for part := range strings.SplitSeq(rest, "~") {
			if len(part) < 2 {
				return "", false
			}
			c, err := strconv.ParseUint(part[:2], 16, 8)
			if err != nil {
				return "", false
			}
			b = append(append(b, byte(c)), part[2:]...)
		}
	}
	return string(b), escape(string(b), lower) == s
}

func serviceName(name string) string { return escape(name, false) }

// serviceID is that of a node. It tells the nodes of all services apart.
func serviceID(name, node string) string { return escape(name, true) + ":" + escape(node, true) }

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:10])
}

var writers = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestCompression) // fails only on a wrong level
	return w
}}

// pack makes Meta of a service with one node, and a digest of what it says.
func pack(single *registry.Service) (meta map[string]string, sum string, err error) {
	data, err := json.Marshal(single)
	if err != nil {
		return nil, "", err
	}
	var packed bytes.Buffer
	w := writers.Get().(*flate.Writer)
	defer writers.Put(w)
	w.Reset(&packed)
	_, _ = w.Write(data) // a Buffer takes everything
	_ = w.Close()
	if packed.Len() > maxPacked {
		return nil, "", fmt.Errorf("%w: node %s of service %s has %d bytes of metadata and endpoints, compressed to %d: Consul takes %d at most",
			registry.ErrInvalid, single.Nodes[0].ID, single.Name, len(data), packed.Len(), maxPacked)
	}
	meta = make(map[string]string)
	text := base64.RawStdEncoding.EncodeToString(packed.Bytes())
	for i := 0; len(text) > 0; i++ {
		n := min(maxValue, len(text))
		meta[metaChunk+strconv.Itoa(i)] = text[:n]
		text = text[n:]
	}
	decorate(meta, single)
	return meta, digest(data), nil
}

var keyFormat = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`).MatchString

// decorate adds what others than Micro can read, as far as there is room.
func decorate(meta map[string]string, single *registry.Service) {
	plain := maps.Clone(single.Metadata)
	if plain == nil {
		plain = make(map[string]string)
	}
	maps.Copy(plain, single.Nodes[0].Metadata)
	delete(plain, metaVersion)
	keys := slices.Sorted(maps.Keys(plain))
	if single.Version != "" {
		plain[metaVersion] = single.Version
		keys = slices.Insert(keys, 0, metaVersion)
	}
	for _, key := range keys {
		ours := key == metaStamp || strings.HasPrefix(key, metaChunk) || strings.HasPrefix(key, "consul-")
		if ours || len(key) > maxKey || !keyFormat(key) || len(plain[key]) > maxValue {
			continue
		}
		if len(meta) == maxPairs-1 { // the stamp is to come
			return
		}
		meta[key] = plain[key]
	}
}

var errForeign = errors.New("not registered by Micro")

// unpack is the opposite of pack. What it returns is valid.
func unpack(meta map[string]string) (single *registry.Service, sum string, err error) {
	var text strings.Builder
	for i := range maxChunks {
		chunk, ok := meta[metaChunk+strconv.Itoa(i)]
		if !ok {
			break
		}
		text.WriteString(chunk)
	}
	if text.Len() == 0 {
		return nil, "", errForeign
	}
	packed, err := base64.RawStdEncoding.DecodeString(text.String())
	if err != nil {
		return nil, "", err
	}
	data, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxUnpacked+1))
	if err != nil {
		return nil, "", err
	}
	if len(data) > maxUnpacked {
		return nil, "", fmt.Errorf("more than %d bytes", maxUnpacked)
	}
	if err := json.Unmarshal(data, &single); err != nil {
		return nil, "", err
	}
	if err := registry.Validate(single); err != nil {
		return nil, "", err
	}
	if len(single.Nodes) != 1 {
		return nil, "", fmt.Errorf("%d nodes", len(single.Nodes))
	}
	return single, digest(data), nil
}
