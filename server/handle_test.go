package server_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/typepb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/server"
)

type Req struct {
	Name string `json:"name"`
}

type Rsp struct {
	Text string `json:"text"`
}

type Forms struct{}

func (Forms) Call(ctx context.Context, req *Req) (*Rsp, error)                     { return &Rsp{req.Name}, nil }
func (Forms) Answers(ctx context.Context, req *Req, out *server.Sender[Rsp]) error { return nil }
func (Forms) Requests(ctx context.Context, in *server.Receiver[Req]) (*Rsp, error) {
	return &Rsp{}, nil
}
func (*Forms) Both(ctx context.Context, both *server.Stream[Req, Rsp]) error        { return nil }
func (Forms) Proto(ctx context.Context, s *wrapperspb.StringValue) (*[]byte, error) { return nil, nil }
func (Forms) Helper(name string) string                                             { return name }

func TestHandle(t *testing.T) {
	s := server.New("test", server.Options{})
	require.NoError(t, s.Handle(&Forms{}, server.Idempotent("Forms.Call", "Forms.Answers")))
	require.NoError(t, server.Func(s, "Extra.Call", Forms{}.Call, server.Idempotent("Extra.Call")))

	described := make(map[string]*registry.Endpoint)
	var names []string
	for _, e := range s.Endpoints() {
		described[e.Name] = e
		names = append(names, e.Name)
	}
	require.Equal(t, []string{"Extra.Call", "Forms.Answers", "Forms.Both", "Forms.Call", "Forms.Proto", "Forms.Requests"}, names)
	for name, metadata := range map[string]map[string]string{
		"Forms.Call":     {"idempotent": "true"},
		"Extra.Call":     {"idempotent": "true"},
		"Forms.Answers":  {"stream": "server", "idempotent": "true"},
		"Forms.Requests": {"stream": "client"},
		"Forms.Both":     {"stream": "both"},
		"Forms.Proto":    nil,
	} {
		require.Equal(t, metadata, described[name].Metadata, name)
	}
	name := []*registry.Value{{Name: "name", Type: "string"}}
	text := []*registry.Value{{Name: "text", Type: "string"}}
	for _, endpoint := range []string{"Extra.Call", "Forms.Answers", "Forms.Both", "Forms.Call", "Forms.Requests"} {
		require.Equal(t, &registry.Value{Type: "Req", Values: name}, described[endpoint].Request, endpoint)
		require.Equal(t, &registry.Value{Type: "Rsp", Values: text}, described[endpoint].Response, endpoint)
	}
	require.Equal(t, "google.protobuf.StringValue", described["Forms.Proto"].Request.Type)
	require.Equal(t, "bytes", described["Forms.Proto"].Response.Type)
}

// The types of TestWrongForms, one mistake each.
type (
	empty       struct{}
	onPointer   struct{}
	byValue     struct{}
	noRequest   struct{}
	noAnswer    struct{}
	noError     struct{}
	valueAnswer struct{}
	tooMany     struct{}
	lonelySend  struct{}
	sendAnswer  struct{}
	bothAnswer  struct{}
	noTotal     struct{}
	noReturn    struct{}
)

func (*onPointer) Hello(context.Context, *Req) (*Rsp, error)                      { return nil, nil }
func (byValue) Hello(context.Context, Req) (*Rsp, error)                          { return nil, nil }
func (noRequest) Hello(context.Context) (*Rsp, error)                             { return nil, nil }
func (noAnswer) Hello(context.Context, *Req) error                                { return nil }
func (noError) Hello(context.Context, *Req) *Rsp                                  { return nil }
func (valueAnswer) Hello(context.Context, *Req) (Rsp, error)                      { return Rsp{}, nil }
func (tooMany) Hello(context.Context, *Req, string, int) (*Rsp, error)            { return nil, nil }
func (lonelySend) Hello(context.Context, *server.Sender[Rsp]) error               { return nil }
func (sendAnswer) Hello(context.Context, *Req, *server.Sender[Rsp]) (*Rsp, error) { return nil, nil }
func (bothAnswer) Hello(context.Context, *server.Stream[Req, Rsp]) (*Rsp, error)  { return nil, nil }
func (noTotal) Hello(context.Context, *server.Receiver[Req]) error                { return nil }
func (noReturn) Hello(context.Context, *Req)                                      {}

func TestWrongForms(t *testing.T) {
	forms := "(ctx, *Request, *server.Sender[Response]) error"
	for name, c := range map[string]struct {
		handle any
		says   []string
	}{
		"nil":          {nil, []string{"handle <nil>: it is nil"}},
		"nil pointer":  {(*Forms)(nil), []string{"handle *server_test.Forms: it is nil"}},
		"no name":      {struct{ Forms }{}, []string{"the type needs a name"}},
		"no methods":   {empty{}, []string{"handle server_test.empty: it has no exported method that takes a context.Context first"}},
		"on pointer":   {onPointer{}, []string{"its pointer has: pass &onPointer{…}"}},
		"by value":     {byValue{}, []string{"handle server_test.byValue: method Hello", "its request must be a pointer, *server_test.Req", forms}},
		"no request":   {noRequest{}, []string{"it takes no request; an empty one is *struct{}", forms}},
		"no answer":    {noAnswer{}, []string{"it must return (*Response, error)", forms}},
		"no error":     {noError{}, []string{"it must return (*Response, error), or error where it sends a stream", forms}},
		"value answer": {valueAnswer{}, []string{"it must return (*Response, error)", forms}},
		"no return":    {noReturn{}, []string{"it must return (*Response, error)", forms}},
		"too many":     {tooMany{}, []string{"it takes 3 arguments after the context", forms}},
		"lonely send":  {lonelySend{}, []string{"it must take its request before the sender", forms}},
		"send answer":  {sendAnswer{}, []string{"it sends its answers, so it must return error alone", forms}},
		"both answer":  {bothAnswer{}, []string{"it sends its answers, so it must return error alone", forms}},
		"no total":     {noTotal{}, []string{"it must return (*Response, error)", forms}},
	} {
		t.Run(name, func(t *testing.T) {
			err := server.New("test", server.Options{}).Handle(c.handle)
			for _, says := range c.says {
				require.ErrorContains(t, err, says)
			}
		})
	}
}

func TestHandleMistakes(t *testing.T) {
	s := server.New("test", server.Options{})
	require.NoError(t, s.Handle(&Forms{}))
	require.ErrorContains(t, s.Handle(&Forms{}), `exists already: two types of one name, or one that was handled twice`)
	require.ErrorContains(t, s.Handle(&onPointer{}, server.Idempotent("Hello")),
		`idempotent: no endpoint "Hello" among those that are handled: onPointer.Hello`)
	require.ErrorContains(t, server.Func[Req, Rsp](s, "Nil", nil), `endpoint "Nil": want a name and a function that is not nil`)
	require.ErrorContains(t, server.Func(s, "", Forms{}.Call), `endpoint "": want a name`)
	require.Len(t, s.Endpoints(), 5, "none of them left anything")

	r := serve(t, nil, server.Options{}, handles(&Forms{}))
	_, err := call[Rsp](t, r, "Forms.Call", &Req{})
	require.NoError(t, err)
	require.ErrorContains(t, r.server.Handle(&onPointer{}), "the server is serving already: handle everything before Serve")
}

type Tree struct {
	Name     string
	Children []*Tree `json:"children"`
}

type Lists []Lists

type ID string

type Base struct {
	Created time.Time `json:"created"`
}

type Wide struct {
	A, B, C, D, E, F, G, H, I, J *Wide
	K                            int
}

type Message struct {
	ID
	Base
	Named   Base              `json:"named,omitempty"`
	Data    []byte            `json:"data"`
	Counts  map[string]int64  `json:"counts"`
	Any     any               `json:"any"`
	Floats  [3]float64        `json:"floats"`
	Hidden  string            `json:"-"`
	Strings map[string][]bool `json:"strings"`
}

type Describe struct{}

func (Describe) Message(context.Context, *Message) (*Tree, error) { return nil, nil }
func (Describe) Lists(context.Context, *Lists) (*Wide, error)     { return nil, nil }
func (Describe) Proto(context.Context, *Order) (*structpb.Struct, error) {
	return nil, nil
}

// Order is a message of protobuf:
//
//	message Order {
//		string order_id = 1;
//		repeated sint64 sizes = 2;
//		map<string, google.protobuf.Option> options = 3;
//		repeated google.protobuf.Timestamp times = 4;
//		google.protobuf.Syntax syntax = 5;
//	}
type Order struct{}

func (*Order) ProtoReflect() protoreflect.Message { return dynamicpb.NewMessage(order()) }

var order = sync.OnceValue(func() protoreflect.MessageDescriptor {
	source := new(descriptorpb.FileDescriptorProto)
	err := prototext.Unmarshal([]byte(`
		name: "shop.proto" package: "shop" syntax: "proto3"
		dependency: ["google/protobuf/type.proto", "google/protobuf/timestamp.proto"]
		message_type {
			name: "Order"
			field { number: 1 name: "order_id" label: LABEL_OPTIONAL type: TYPE_STRING }
			field { number: 2 name: "sizes" label: LABEL_REPEATED type: TYPE_SINT64 }
			field { number: 3 name: "options" label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".shop.Order.OptionsEntry" }
			field { number: 4 name: "times" label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" }
			field { number: 5 name: "syntax" label: LABEL_OPTIONAL type: TYPE_ENUM type_name: ".google.protobuf.Syntax" }
			nested_type {
				name: "OptionsEntry" options { map_entry: true }
				field { number: 1 name: "key" label: LABEL_OPTIONAL type: TYPE_STRING }
				field { number: 2 name: "value" label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".google.protobuf.Option" }
			}
		}`), source)
	if err != nil {
		panic(err)
	}
	file, err := protodesc.NewFile(source, protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	return file.Messages().Get(0)
})

func TestDescribe(t *testing.T) {
	s := server.New("test", server.Options{})
	require.NoError(t, s.Handle(Describe{}))
	endpoints := make(map[string]*registry.Endpoint)
	for _, e := range s.Endpoints() {
		endpoints[strings.TrimPrefix(e.Name, "Describe.")] = e
	}

	created := &registry.Value{Name: "created", Type: "string"}
	require.Equal(t, &registry.Value{Type: "Message", Values: []*registry.Value{
		{Name: "ID", Type: "string"},
		created,
		{Name: "named", Type: "Base", Values: []*registry.Value{created}},
		{Name: "data", Type: "bytes"},
		{Name: "counts", Type: "map[string]int64"},
		{Name: "any", Type: "any"},
		{Name: "floats", Type: "[]float64"},
		{Name: "strings", Type: "map[string][]bool"},
	}}, endpoints["Message"].Request, "as JSON shows it")

	depth := 0
	for v := endpoints["Message"].Response; len(v.Values) == 2; v = v.Values[1] {
		require.Equal(t, "Name", v.Values[0].Name)
		depth++
	}
	require.Equal(t, 4, depth, "a type that contains itself is cut off")
	require.Contains(t, endpoints["Lists"].Request.Type, "Lists")
	require.Less(t, count(endpoints["Lists"].Response), 600, "a wide one as well")
	require.Equal(t, &registry.Value{Type: "shop.Order", Values: []*registry.Value{
		{Name: "orderId", Type: "string"},
		{Name: "sizes", Type: "[]sint64"},
		{Name: "options", Type: "map[string]google.protobuf.Option", Values: []*registry.Value{
			{Name: "name", Type: "string"}, {Name: "value", Type: "google.protobuf.Any"},
		}},
		{Name: "times", Type: "[]google.protobuf.Timestamp"},
		{Name: "syntax", Type: "google.protobuf.Syntax"},
	}}, endpoints["Proto"].Request)
	require.Equal(t, &registry.Value{Type: "google.protobuf.Struct"}, endpoints["Proto"].Response, "JSON shows none of its fields")

	require.NoError(t, registry.Validate(&registry.Service{Name: "test", Endpoints: s.Endpoints(),
		Nodes: []*registry.Node{{ID: "1", Address: "a:1"}}}), "a registry takes it")
}

func count(v *registry.Value) int {
	n := 1
	for _, field := range v.Values {
		n += count(field)
	}
	return n
}
