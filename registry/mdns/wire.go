package mdns

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/plugmicro/micro/registry"
	"golang.org/x/net/dns/dnsmessage"
)

const (
	maxNode   = 8000      // bytes of a packet with one node
	maxPacket = 9000      // bytes, as RFC 6762 has it
	goodSize  = 1200      // bytes of a packet that needs no fragments; more nodes than fit are sent in several
	maxText   = 128 << 10 // bytes of a TXT record after decompression
	flush     = 1 << 15   // the bit of the class which says that this is all there is under the name
	chunk     = 250       // bytes of data in one string of a TXT record
)

// names are those of a domain, in lower case, with a dot at the end.
type names struct{ domain, service string }

func (n names) instance(label string) string { return label + "." + n.service }

// label names a node within the service type: readable at the beginning, unique at the end.
func label(name, id string) string {
	readable := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			return c
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		}
		return '-'
	}, id)
	sum := sha256.Sum256([]byte(name + "\x00" + id)) // no name contains a zero
	return fmt.Sprintf("%.30s-%x", readable, sum[:10])
}

// payload is what the TXT record holds, as compressed JSON.
type payload struct {
	*registry.Service
	Stamp int64 `json:"stamp"`
}

// text is an encoded TXT record: its strings, each with its length before it.
type text struct {
	raw   string
	bytes int // before compression
}

// writers are large.
var writers = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestCompression) // fails only on a wrong level
	return w
}}

func writer() *flate.Writer { return writers.Get().(*flate.Writer) }

func encode(s *registry.Service, stamp int64) (text, error) {
	data, err := json.Marshal(payload{s, stamp})
	if err != nil {
		return text{}, err
	}
	if len(data) > maxText {
		return text{}, fmt.Errorf("%w: node %s of service %s has %d bytes of metadata and endpoints, multicast DNS takes %d at most: use another registry",
			registry.ErrInvalid, s.Nodes[0].ID, s.Name, len(data), maxText)
	}
	var packed bytes.Buffer
	w := writer()
	defer writers.Put(w)
	w.Reset(&packed)
	_, _ = w.Write(data) // a Buffer takes everything
	_ = w.Close()
	return text{raw: string(frame(packed.Bytes())), bytes: len(data)}, nil
}

// frame cuts data into strings of the form that RFC 6763 asks for: the version, then numbered pieces.
func frame(data []byte) []byte {
	add := func(to []byte, key string, value []byte) []byte {
		to = append(to, byte(len(key)+1+len(value)))
		return append(append(append(to, key...), '='), value...)
	}
	out := add(nil, "v", []byte("1"))
	for i := 0; len(data) > 0; i++ {
		n := min(chunk, len(data))
		out = add(out, strconv.Itoa(i), data[:n])
		data = data[n:]
	}
	return out
}

var errForeign = errors.New("no record of micro")

// unframe is the opposite of frame. Strings that follow the pieces are left for later versions.
func unframe(list []string) ([]byte, error) {
	if len(list) < 2 || list[0] != "v=1" {
		return nil, errForeign
	}
	var data []byte
	for i, s := range list[1:] {
		piece, ok := strings.CutPrefix(s, strconv.Itoa(i)+"=")
		if !ok {
			break
		}
		data = append(data, piece...)
	}
	return data, nil
}

// decode returns what a TXT record says, which is valid.
func decode(list []string) (*registry.Service, int64, int, error) {
	packed, err := unframe(list)
	if err != nil {
		return nil, 0, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxText+1))
	if err != nil {
		return nil, 0, 0, err
	}
	if len(data) > maxText {
		return nil, 0, 0, fmt.Errorf("more than %d bytes", maxText)
	}
	var p payload
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, 0, 0, err
	}
	if err := registry.Validate(p.Service); err != nil {
		return nil, 0, 0, err
	}
	if len(p.Nodes) != 1 || p.Stamp < 0 || p.Stamp > math.MaxInt64/2 {
		return nil, 0, 0, errForeign
	}
	return p.Service, p.Stamp, len(data), nil
}

// answer is one node in a response; a ttl of 0 says goodbye.
type answer struct {
	*entry
	ttl time.Duration
}

func (a answer) seconds() uint32 { return uint32((a.ttl + time.Second - 1) / time.Second) }

// response builds one packet.
func (n names) response(list []answer) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true, Authoritative: true})
	b.EnableCompression()
	err := b.StartAnswers()
	for _, a := range list {
		if err == nil {
			err = n.records(&b, a)
		}
	}
	if err != nil {
		return nil, err
	}
	return b.Finish()
}

func (n names) records(b *dnsmessage.Builder, a answer) error {
	instance, err := dnsmessage.NewName(n.instance(a.label))
	if err != nil {
		return err
	}
	service, err := dnsmessage.NewName(n.service)
	if err != nil {
		return err
	}
	host, err := dnsmessage.NewName(a.label + n.domain)
	if err != nil {
		return err
	}
	shared := dnsmessage.ResourceHeader{Name: service, Class: dnsmessage.ClassINET, TTL: a.seconds()}
	unique := dnsmessage.ResourceHeader{Name: instance, Class: dnsmessage.ClassINET | flush, TTL: a.seconds()}
	ofHost := dnsmessage.ResourceHeader{Name: host, Class: dnsmessage.ClassINET | flush, TTL: a.seconds()}
	addr, port := hostPort(a.entry)
	errs := []error{
		b.PTRResource(shared, dnsmessage.PTRResource{PTR: instance}),
		b.SRVResource(unique, dnsmessage.SRVResource{Port: port, Target: host}),
		b.TXTResource(unique, dnsmessage.TXTResource{TXT: a.text.strings()}),
	}
	if addr.Is4() {
		errs = append(errs, b.AResource(ofHost, dnsmessage.AResource{A: addr.As4()}))
	} else if addr.Is6() {
		errs = append(errs, b.AAAAResource(ofHost, dnsmessage.AAAAResource{AAAA: addr.As16()}))
	}
	return errors.Join(errs...)
}

// hostPort is for the tools of others, who know only of addresses and ports.
func hostPort(e *entry) (netip.Addr, uint16) {
	if !e.alive() {
		return netip.Addr{}, 0
	}
	a, _ := netip.ParseAddrPort(e.service.Nodes[0].Address)
	return a.Addr().Unmap().WithZone(""), a.Port()
}

func (t text) strings() []string {
	var list []string
	for raw := t.raw; raw != ""; {
		end := 1 + int(raw[0])
		list = append(list, raw[1:end])
		raw = raw[end:]
	}
	return list
}

func join(list []string) string {
	var b strings.Builder
	for _, s := range list {
		b.WriteByte(byte(len(s)))
		b.WriteString(s)
	}
	return b.String()
}

// query asks for all instances, and says which are known; or for some by name.
func (n names) query(all bool, known []answer, labels []string) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{})
	b.EnableCompression()
	err := b.StartQuestions()
	service, nameErr := dnsmessage.NewName(n.service)
	err = errors.Join(err, nameErr)
	if all && err == nil {
		err = b.Question(dnsmessage.Question{Name: service, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET})
	}
	for _, label := range labels {
		name, nameErr := dnsmessage.NewName(n.instance(label))
		if err = errors.Join(err, nameErr); err == nil {
			err = b.Question(dnsmessage.Question{Name: name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET})
		}
	}
	if err == nil {
		err = b.StartAnswers()
	}
	for _, k := range known {
		name, nameErr := dnsmessage.NewName(n.instance(k.label))
		if err = errors.Join(err, nameErr); err == nil {
			header := dnsmessage.ResourceHeader{Name: service, Class: dnsmessage.ClassINET, TTL: k.seconds()}
			err = b.PTRResource(header, dnsmessage.PTRResource{PTR: name})
		}
	}
	if err != nil {
		return nil, err
	}
	return b.Finish()
}

// message is what concerns this service type in a packet.
type message struct {
	all    bool            // somebody asks for all instances
	known  map[string]bool // but for these
	labels []string        // somebody asks for these
	texts  []heard         // somebody says this
}

type heard struct {
	label string
	ttl   time.Duration
	text  []string
}

// parse takes packets from anybody.
func (n names) parse(packet []byte) (*message, error) {
	if len(packet) > maxPacket {
		return nil, errors.New("packet too large")
	}
	var p dnsmessage.Parser
	header, err := p.Start(packet)
	if err != nil {
		return nil, err
	}
	if header.OpCode != 0 || header.RCode != dnsmessage.RCodeSuccess {
		return nil, errForeign
	}
	m := &message{known: make(map[string]bool)}
	if err := n.questions(&p, m, !header.Response); err != nil {
		return nil, err
	}
	if err := n.section(&p, m, header.Response, p.AnswerHeader, p.SkipAnswer); err != nil {
		return nil, err
	}
	if !header.Response {
		return m, nil
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return nil, err
	}
	return m, n.section(&p, m, true, p.AdditionalHeader, p.SkipAdditional)
}

func (n names) questions(p *dnsmessage.Parser, m *message, count bool) error {
	for {
		q, err := p.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err != nil {
			return err
		}
		if q.Class&^flush != dnsmessage.ClassINET && q.Class&^flush != dnsmessage.ClassANY || !count {
			continue
		}
		name := strings.ToLower(q.Name.String())
		any := q.Type == dnsmessage.TypeALL
		switch label, ok := n.label(name); {
		case name == n.service && (any || q.Type == dnsmessage.TypePTR):
			m.all = true
		case ok && (any || q.Type == dnsmessage.TypeTXT || q.Type == dnsmessage.TypeSRV):
			m.labels = append(m.labels, label)
		}
	}
}

func (n names) label(name string) (string, bool) {
	label, ok := strings.CutSuffix(name, "."+n.service)
	return label, ok && label != "" && !strings.Contains(label, ".")
}

// section reads what is said in a response, and what is known in a query.
func (n names) section(p *dnsmessage.Parser, m *message, response bool,
	next func() (dnsmessage.ResourceHeader, error), skip func() error) error {
	for {
		h, err := next()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.ToLower(h.Name.String())
		switch label, ok := n.label(name); {
		case response && ok && h.Type == dnsmessage.TypeTXT:
			r, err := p.TXTResource()
			if err != nil {
				return err
			}
			m.texts = append(m.texts, heard{label, time.Duration(h.TTL) * time.Second, r.TXT})
		case !response && name == n.service && h.Type == dnsmessage.TypePTR:
			r, err := p.PTRResource()
			if err != nil {
				return err
			}
			if label, ok := n.label(strings.ToLower(r.PTR.String())); ok {
				m.known[label] = true
			}
		default:
			if err := skip(); err != nil {
				return err
			}
		}
	}
}
