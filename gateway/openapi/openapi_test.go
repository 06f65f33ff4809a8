package openapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/sourcecontextpb"
	"google.golang.org/protobuf/types/known/typepb"

	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/gateway/openapi"
	"github.com/plugmicro/micro/registry"
	"github.com/plugmicro/micro/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// document makes the document of services, and validates it.
func document(t *testing.T, services ...*registry.Service) *openapi3.T {
	t.Helper()
	data, err := openapi.Document(services)
	require.NoError(t, err)
	doc, err := openapi3.NewLoader().LoadFromData(data)
	require.NoError(t, err, "%.2000s", data)
	require.NoError(t, doc.Validate(t.Context()), "%.2000s", data)
	return doc
}

// service is one as a server registers it.
func service(t *testing.T, name, version string, handlers ...any) *registry.Service {
	t.Helper()
	s := server.New(name, server.Options{})
	for _, h := range handlers {
		require.NoError(t, s.Handle(h, idempotent(h)...))
	}
	return &registry.Service{Name: name, Version: version, Endpoints: s.Endpoints(), Nodes: []*registry.Node{{ID: "1", Address: "a"}}}
}

func idempotent(h any) []server.HandleOption {
	if _, ok := h.(Greeter); ok {
		return []server.HandleOption{server.Idempotent("Greeter.Hello")}
	}
	return nil
}

type Greeter struct{}

type HelloRequest struct {
	Name string `json:"name"`
	Loud bool   `json:"loud"`
	Tags []string
}

type HelloResponse struct {
	Message string `json:"message"`
}

func (Greeter) Hello(context.Context, *HelloRequest) (*HelloResponse, error) { return nil, nil }

func (Greeter) Many(context.Context, *HelloRequest, *server.Sender[HelloResponse]) error { return nil }

func (Greeter) Sum(context.Context, *server.Receiver[HelloRequest]) (*HelloResponse, error) {
	return nil, nil
}

func (Greeter) Chat(context.Context, *server.Stream[HelloRequest, HelloResponse]) error { return nil }

type Shapes struct{}

type Tree struct {
	Label    string           `json:"label"`
	Children []*Tree          `json:"children"`
	Parent   *Tree            `json:"parent"`
	ByName   map[string]*Tree `json:"by_name"`
	Forest   *Forest          `json:"forest"`
}

type Forest struct {
	Trees []Tree `json:"trees"`
}

type Everything struct {
	Bool    bool              `json:"bool"`
	Int     int               `json:"int"`
	Int8    int8              `json:"int8"`
	Uint64  uint64            `json:"uint64"`
	Float   float64           `json:"float"`
	Text    string            `json:"text"`
	Data    []byte            `json:"data"`
	Any     any               `json:"any"`
	When    time.Time         `json:"when"`
	Matrix  [][]float32       `json:"matrix"`
	Pairs   map[string]string `json:"pairs"`
	Nested  *HelloResponse    `json:"nested"`
	Ordinal map[int][]int     `json:"ordinal"`
}

func (Shapes) Tree(context.Context, *Tree) (*Tree, error)                   { return nil, nil }
func (Shapes) Everything(context.Context, *Everything) (*Everything, error) { return nil, nil }
func (Shapes) Proto(context.Context, *typepb.Type) (*typepb.Type, error)    { return nil, nil }
func (Shapes) Bytes(context.Context, *[]byte) (*[]byte, error)              { return nil, nil }
func (Shapes) Empty(context.Context, *struct{}) (*struct{}, error)          { return nil, nil }

func TestOneService(t *testing.T) {
	doc := document(t, service(t, "greeter", "1.0.0", Greeter{}))
	require.Equal(t, []string{"/greeter/chat", "/greeter/hello", "/greeter/many", "/greeter/sum", "/v1/rpc"}, paths(doc))
	require.Empty(t, doc.Servers, "it is where it was read")

	hello := doc.Paths.Value("/greeter/hello")
	require.Equal(t, "greeter.Greeter.Hello", hello.Post.OperationID)
	require.Equal(t, []string{"greeter"}, hello.Post.Tags)
	require.Equal(t, true, hello.Post.Extensions["x-idempotent"])
	require.NotNil(t, hello.Post.Responses.Default())
	require.Equal(t, "#/components/schemas/greeter.HelloRequest", hello.Post.RequestBody.Value.Content["application/json"].Schema.Ref)
	require.Len(t, hello.Get.Parameters, 4, "three fields and the timeout")
	require.True(t, hello.Get.Parameters.GetByInAndName("query", "Tags").Schema.Value.Type.Is("array"))

	many := doc.Paths.Value("/greeter/many")
	require.NotNil(t, many.Post.Responses.Value("200").Value.Content["text/event-stream"])
	require.NotNil(t, many.Post.Responses.Value("200").Value.Content["application/x-ndjson"])
	require.Nil(t, many.Post.Responses.Value("200").Value.Content["application/json"])
	require.NotNil(t, many.Get, "an EventSource can only GET")

	chat := doc.Paths.Value("/greeter/chat")
	require.NotNil(t, chat.Post.RequestBody.Value.Content["application/x-ndjson"])
	require.Contains(t, chat.Extensions, "x-websocket")
	require.NotNil(t, chat.Get.Responses.Value("101"))
	require.Len(t, doc.Components.Schemas, 3, "the same message of several endpoints is one component")
}

func paths(doc *openapi3.T) []string {
	p := doc.Paths.Keys()
	slices.Sort(p)
	return p
}

// TestAnswersFitTheDocument encodes what a service could answer, and holds it against what the document says of it.
func TestAnswersFitTheDocument(t *testing.T) {
	data, err := openapi.Document([]*registry.Service{service(t, "shapes", "", Shapes{})})
	require.NoError(t, err)
	tree := &Tree{Label: "a", Children: []*Tree{{Label: "b", Parent: &Tree{}, ByName: map[string]*Tree{"c": {Forest: &Forest{}}, "d": nil}}}}
	blob := []byte("\x00\xff")
	for method, answers := range map[string][]any{
		"tree": {new(Tree), tree},
		"everything": {new(Everything), &Everything{
			Uint64: 1 << 63, Int: -1 << 62, Int8: -1, Any: []any{1, "a"}, When: time.Now(), Data: blob, Matrix: [][]float32{nil, {1.5}},
			Nested: &HelloResponse{}, Ordinal: map[int][]int{7: nil}, Pairs: map[string]string{},
		}},
		"proto": {new(typepb.Type), &typepb.Type{
			Name:          "a",
			Fields:        []*typepb.Field{{Kind: typepb.Field_TYPE_BOOL, Options: []*typepb.Option{{Name: "x"}}}},
			SourceContext: &sourcecontextpb.SourceContext{FileName: "x"},
			Syntax:        typepb.Syntax_SYNTAX_EDITIONS,
		}},
		"bytes": {&blob},
		"empty": {&struct{}{}},
	} {
		operation := "#/paths/~1shapes~1" + method + "/post"
		answer := schema(t, data, operation+"/responses/200/content/application~1json/schema")
		request := schema(t, data, operation+"/requestBody/content/application~1json/schema")
		for _, v := range answers {
			body := encode(t, v)
			require.NoError(t, answer.Validate(body), method)
			require.NoError(t, request.Validate(body), method)
		}
		if method != "empty" { // of which nothing is described
			require.Error(t, answer.Validate(7.5), "%s: the schema says something", method)
		}
	}
	deep := map[string]any{"children": []any{map[string]any{"forest": map[string]any{"trees": []any{map[string]any{"label": 7.0}}}}}}
	require.ErrorContains(t, schema(t, data, "#/components/schemas/shapes.Tree").Validate(deep), "/children/0/forest/trees/0/label")
}

// schema compiles what a document has at a place.
func schema(t *testing.T, document []byte, at string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("http://test/openapi.json", doc))
	s, err := c.Compile("http://test/openapi.json" + at)
	require.NoError(t, err)
	return s
}

// encode is v as it comes out of a call.
func encode(t *testing.T, v any) any {
	t.Helper()
	c, err := codec.Get(codec.JSON)
	require.NoError(t, err)
	body, err := c.Append(nil, v)
	require.NoError(t, err)
	decoded, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	require.NoError(t, err)
	return decoded
}

// TestRecursion holds that a type which contains itself is one component that does, however deep it was described.
func TestRecursion(t *testing.T) {
	doc := document(t, service(t, "shapes", "", Shapes{}))
	var trees []string
	for name := range doc.Components.Schemas {
		if strings.HasPrefix(name, "shapes.Tree") || strings.HasPrefix(name, "shapes.Forest") {
			trees = append(trees, name)
		}
	}
	require.ElementsMatch(t, []string{"shapes.Tree", "shapes.Forest"}, trees)
	children := doc.Components.Schemas["shapes.Tree"].Value.Properties["children"].Value.Items.Value
	require.Equal(t, "#/components/schemas/shapes.Tree", children.AnyOf[0].Ref)
}

func TestTypesOfOneNameAndOtherFieldsStayApart(t *testing.T) {
	item := func(field string) *registry.Value {
		return &registry.Value{Type: "Item", Values: []*registry.Value{{Name: field, Type: "string"}}}
	}
	doc := document(t, &registry.Service{Name: "shop", Endpoints: []*registry.Endpoint{{Name: "Shop.Swap", Request: item("a"), Response: item("b")}}})
	require.Contains(t, doc.Components.Schemas["shop.Item"].Value.Properties, "a")
	require.Contains(t, doc.Components.Schemas["shop.Item_2"].Value.Properties, "b")
}

func TestVersions(t *testing.T) {
	version := func(v, stream string, fields ...*registry.Value) *registry.Service {
		return &registry.Service{Name: "greeter", Version: v, Endpoints: []*registry.Endpoint{{
			Name: "Greeter.Hello", Request: &registry.Value{Type: "Req", Values: fields}, Response: &registry.Value{Type: "string"},
			Metadata: map[string]string{registry.MetadataStream: stream},
		}}}
	}
	name, lang := &registry.Value{Name: "name", Type: "string"}, &registry.Value{Name: "lang", Type: "string"}
	doc := document(t, version("2", "", name, lang), version("1", "server", name))
	hello := doc.Paths.Value("/greeter/hello")
	request := hello.Post.RequestBody.Value.Content["application/json"].Schema.Value
	require.Len(t, request.AnyOf, 2)
	require.Equal(t, "Versions 1, 2.", hello.Post.Description)
	content := hello.Post.Responses.Value("200").Value.Content
	require.Len(t, content, 3, "one of them streams")
	require.True(t, content["application/json"].Schema.Value.Type.Is("string"), "the same answer is there once")
	require.Len(t, hello.Get.Parameters, 3)
}

// TestQuery: what package rpc takes as parameters is offered as such, and nothing that it does not take.
func TestQuery(t *testing.T) {
	for of, want := range map[string]string{
		"string": "string", "[]uint64": "array", "double": "number", "sfixed32": "integer", "bool": "boolean",
		"google.protobuf.Timestamp": "string", "google.protobuf.BoolValue": "boolean", "[]google.protobuf.Duration": "array",
		"any": "", "[][]int": "", "map[string]int": "", "shop.State": "", "google.protobuf.Struct": "", "google.protobuf.Value": "",
	} {
		t.Run(of, func(t *testing.T) {
			call := func(field string) *openapi3.Operation {
				request := &registry.Value{Type: "shop.Query", Values: []*registry.Value{{Name: field, Type: of}}}
				doc := document(t, &registry.Service{Name: "shop", Endpoints: []*registry.Endpoint{{Name: "Shop.Find", Request: request}}})
				return doc.Paths.Value("/shop/find").Get
			}
			if want == "" {
				require.Nil(t, call("a"))
				return
			}
			require.True(t, call("a").Parameters.GetByInAndName("query", "a").Schema.Value.Type.Includes(want))
			require.Nil(t, call("a.b"), "of a field a, to which there is none")
		})
	}
}

func TestWhatHasNoShortPath(t *testing.T) {
	odd := func(service string, endpoints ...string) *registry.Service {
		s := &registry.Service{Name: service}
		for _, e := range endpoints {
			s.Endpoints = append(s.Endpoints, &registry.Endpoint{Name: e})
		}
		return s
	}
	doc := document(t, odd("a b", "A.B"), odd("plain", "nodot", "Three.Part.Name", "lower.case", "Plain.OK", "Plain.{id}"), odd("v1", "Foo.Bar", "V1.Rpc"),
		odd("_internal", "Internal.Secret"), odd("foo", "Foo.Call", "Say.SayHello", "Foo.HTTPGet"), odd("go.foo", "Foo.Bar"), odd("v2.foo", "Foo.Bar"),
		odd("healthz", "Healthz.Call"))
	require.Equal(t, []string{"/foo", "/foo/HTTPGet", "/foo/say/say-hello", "/go/foo/foo/bar", "/healthz/call", "/plain/OK", "/plain/Three.Part.Name",
		"/plain/lower.case", "/v1/Foo.Bar", "/v1/V1.Rpc", "/v1/rpc", "/v2/foo/bar"}, paths(doc))
	body := doc.Paths.Value("/v1/rpc").Post.RequestBody.Value.Content["application/json"].Schema.Value
	var called []string
	for _, s := range body.AnyOf {
		if p := s.Value.Properties; p != nil {
			called = append(called, fmt.Sprint(p["service"].Value.Const, " ", p["endpoint"].Value.Const))
		}
	}
	require.Equal(t, []string{"a b A.B", "plain Plain.{id}", "plain nodot"}, called)
	data, err := json.Marshal(doc)
	require.NoError(t, err)
	require.NotContains(t, string(data), "nternal.Secret")
}

func TestTheOrderOfServicesDoesNotMatter(t *testing.T) {
	services := []*registry.Service{
		service(t, "shapes", "1", Shapes{}), service(t, "greeter", "2", Greeter{}), service(t, "greeter", "1", Greeter{}), service(t, "shapes", "2", Shapes{}),
	}
	want, err := openapi.Document(services)
	require.NoError(t, err)
	for range 10 {
		rand.Shuffle(len(services), func(i, j int) { services[i], services[j] = services[j], services[i] })
		got, err := openapi.Document(services)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
	}
}

func TestNoServices(t *testing.T) {
	require.Equal(t, []string{"/v1/rpc"}, paths(document(t)))
}

// TestHostileRegistrations holds that the document stays valid whatever is registered.
func TestHostileRegistrations(t *testing.T) {
	deep := &registry.Value{Name: "x", Type: "Deep"}
	for range 2000 {
		deep = &registry.Value{Name: "x", Type: "Deep", Values: []*registry.Value{deep}}
	}
	var fields []*registry.Value
	for i := range 5000 {
		fields = append(fields, &registry.Value{Name: fmt.Sprintf("f%d", i%2500), Type: "Item", Values: []*registry.Value{{Name: fmt.Sprint(i), Type: "string"}}})
	}
	names := []string{`"`, `</script><script>alert(1)</script>`, "{x}", "{", "a/b", "../..", "..", ".", "a..b", "%2f", "\xff", "\xfe", "ä", "日本", "#/x", "~1", "$ref",
		"__proto__", "x\ny", strings.Repeat("n", 300), "v1.rpc", "rpc", "Problem", "a.get", "a"}
	var services []*registry.Service
	for _, name := range names {
		s := &registry.Service{Name: name, Version: name, Metadata: map[string]string{name: name}}
		for _, e := range names {
			s.Endpoints = append(s.Endpoints, &registry.Endpoint{
				Name:     e,
				Request:  &registry.Value{Type: e, Values: []*registry.Value{{Name: e, Type: name}, {Name: e, Type: "int"}, {Type: "[][]" + e}, nil}},
				Response: &registry.Value{Type: "[]map[string]" + e},
				Metadata: map[string]string{registry.MetadataStream: e},
			}, nil)
		}
		services = append(services, s, nil)
	}
	services = append(services, &registry.Service{Name: "big", Endpoints: []*registry.Endpoint{
		{Name: "Big.Deep", Request: deep},
		{Name: "Big.Wide", Request: &registry.Value{Type: "Wide", Values: fields}},
		{Name: "Big.List", Request: &registry.Value{Type: strings.Repeat("[]", 1<<18)}},
	}})
	doc := document(t, services...)
	seen := make(map[string]bool)
	for path, item := range doc.Paths.Map() {
		require.Regexp(t, `^[A-Za-z0-9/_~.-]+$`, path)
		for _, op := range item.Operations() {
			require.False(t, seen[op.OperationID], op.OperationID)
			seen[op.OperationID] = true
		}
	}
}

// TestManyAlike holds that names which are made unique do not cost the square of their number.
func TestManyAlike(t *testing.T) {
	work := func(n int) float64 {
		s := &registry.Service{Name: "a"}
		for i := range n {
			s.Endpoints = append(s.Endpoints, &registry.Endpoint{Name: fmt.Sprintf("A.M%d", i), Request: &registry.Value{
				Type: "Ä" + string(rune(0x4e00+i)), Values: []*registry.Value{{Name: "a", Type: "string"}},
			}})
		}
		return testing.AllocsPerRun(1, func() {
			_, err := openapi.Document([]*registry.Service{s})
			require.NoError(t, err)
		})
	}
	require.Less(t, work(2000), 6*work(500)) // not 16 times
}

func FuzzDocument(f *testing.F) {
	f.Add("greeter", "Greeter.Hello", "name", "string", "server")
	f.Add("a.b", "X.Y", "", "[]map[string]google.protobuf.Any", "both")
	f.Fuzz(func(t *testing.T, name, endpoint, field, typ, stream string) {
		v := &registry.Value{Type: typ, Values: []*registry.Value{{Name: field, Type: typ}, {Name: typ, Type: field}}}
		document(t, &registry.Service{Name: name, Endpoints: []*registry.Endpoint{{
			Name: endpoint, Request: v, Response: v, Metadata: map[string]string{registry.MetadataStream: stream},
		}}})
	})
}

func BenchmarkDocument(b *testing.B) {
	var services []*registry.Service
	for i := range 200 {
		s := server.New("x", server.Options{})
		if err := s.Handle(Shapes{}); err != nil {
			b.Fatal(err)
		}
		services = append(services, &registry.Service{Name: fmt.Sprintf("service%d", i), Endpoints: s.Endpoints()})
	}
	for b.Loop() {
		if _, err := openapi.Document(services); err != nil {
			b.Fatal(err)
		}
	}
}
