// Package openapi writes what services register as OpenAPI 3.1, for who calls them through the gateway:
//
//	doc, err := openapi.Document(dir.Services())
//
// An endpoint is found under its short path, /greeter/hello, or, where no such path leads to it, under /v1/rpc. Types are
// as exact as registrations are: those that were not described take any value.
package openapi

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/registry"
)

// The content types of streams.
const (
	eventStream = "text/event-stream"
	ndjson      = "application/x-ndjson"
)

// Document describes all endpoints of services, which may have several versions each. The same services make the same
// document, byte by byte, in whatever order they come. Nothing that was registered breaks it; services whose names begin
// with an underscore are internal and left out. They are all where the document was read: it names no server.
func Document(services []*registry.Service) ([]byte, error) {
	d := newDocument()
	for _, versions := range group(services) {
		d.service(versions)
	}
	d.rpc()
	return marshal(d.object())
}

// document is what grows.
type document struct {
	paths   object
	schemas object
	tags    []object
	called  []object // what /v1/rpc takes, of endpoints that have no short path
	ids     names    // of operations
	keys    names    // of components
}

func newDocument() *document {
	d := &document{paths: make(object), schemas: make(object), ids: make(names), keys: make(names)}
	d.keys.take("Problem")
	d.ids.take("rpc")
	return d
}

// endpoint is one endpoint as all versions of its service have it.
type endpoint struct {
	service    string
	name       string
	versions   []string
	requests   []field
	responses  []field
	streams    map[string]bool // "", "server", "client", "both"
	idempotent bool
}

// group sorts services by name and version.
func group(services []*registry.Service) [][]*registry.Service {
	byName := make(map[string][]*registry.Service)
	for _, s := range services {
		if s != nil && !strings.HasPrefix(s.Name, "_") {
			name := clean(s.Name)
			byName[name] = append(byName[name], s)
		}
	}
	var groups [][]*registry.Service
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		versions := byName[name]
		slices.SortStableFunc(versions, func(a, b *registry.Service) int { return cmp.Compare(a.Version, b.Version) })
		groups = append(groups, versions)
	}
	return groups
}

func (d *document) service(versions []*registry.Service) {
	name := clean(versions[0].Name)
	t := &types{byShape: make(map[string][]*message)}
	endpoints := merge(t, name, versions)
	if len(endpoints) == 0 {
		return
	}
	for _, m := range t.all {
		m.key = d.keys.take(name + "." + cmp.Or(short(m.name), "object"))
	}
	for _, m := range t.all {
		d.schemas[m.key] = m.schema()
	}
	tag := object{"name": name}
	if said := said(versions); said != "" {
		tag["description"] = said
	}
	d.tags = append(d.tags, tag)
	for _, key := range slices.Sorted(maps.Keys(endpoints)) {
		d.endpoint(endpoints[key])
	}
}

// merge puts what versions say of the same endpoint together.
func merge(t *types, service string, versions []*registry.Service) map[string]*endpoint {
	endpoints := make(map[string]*endpoint)
	for _, v := range versions {
		for _, registered := range sorted(v.Endpoints) {
			name := clean(registered.Name)
			e := endpoints[name]
			if e == nil {
				e = &endpoint{service: service, name: name, idempotent: true, streams: make(map[string]bool)}
				endpoints[name] = e
			}
			if v.Version != "" {
				e.versions = append(e.versions, clean(v.Version))
			}
			e.requests = append(e.requests, t.field(registered.Request, maxDepth))
			e.responses = append(e.responses, t.field(registered.Response, maxDepth))
			e.streams[registered.Metadata[registry.MetadataStream]] = true
			e.idempotent = e.idempotent && registered.Metadata[registry.MetadataIdempotent] == "true"
		}
	}
	return endpoints
}

func sorted(endpoints []*registry.Endpoint) []*registry.Endpoint {
	endpoints = slices.DeleteFunc(slices.Clone(endpoints), func(e *registry.Endpoint) bool { return e == nil || e.Name == "" })
	slices.SortStableFunc(endpoints, func(a, b *registry.Endpoint) int { return cmp.Compare(a.Name, b.Name) })
	return endpoints
}

// short is the name of a type without its package.
func short(typ string) string {
	return typ[strings.LastIndexByte(typ, '.')+1:]
}

// said is what is worth saying of a service.
func said(versions []*registry.Service) string {
	var names []string
	for _, v := range versions {
		if v.Version != "" {
			names = append(names, clean(v.Version))
		}
	}
	switch names = slices.Compact(names); len(names) {
	case 0:
		return ""
	case 1:
		return "Version " + names[0]
	}
	return "Versions " + strings.Join(names, ", ")
}

func (d *document) endpoint(e *endpoint) {
	path := Path(e.service, e.name)
	if path == "" || d.paths[path] != nil {
		d.called = append(d.called, e.call())
		return
	}
	id := e.service + "." + e.name
	item := object{"post": e.operation(d.ids.take(id), object{"requestBody": e.body(), "parameters": []object{timeout}})}
	if parameters, ok := e.query(); ok {
		item["get"] = e.operation(d.ids.take(id+".get"), object{"parameters": append(parameters, timeout)})
	}
	if e.takesStream() {
		d.webSocket(item, e, id)
	}
	d.paths[path] = item
}

// takesStream says whether some version takes a stream of requests.
func (e *endpoint) takesStream() bool { return e.streams["client"] || e.streams["both"] }

// call is what /v1/rpc takes to call it.
func (e *endpoint) call() object {
	return object{
		"type":     "object",
		"required": []string{"service", "endpoint"},
		"properties": object{
			"service":  object{"const": e.service},
			"endpoint": object{"const": e.name},
			"body":     schemas(e.requests),
		},
		"description": "answered with: " + describe(e.responses),
	}
}

func describe(fields []field) string {
	var types []string
	seen := make(map[string]bool)
	for _, f := range fields {
		if !seen[f.typ] {
			seen[f.typ] = true
			types = append(types, f.typ)
		}
	}
	return strings.Join(types, ", ")
}

func (e *endpoint) operation(id string, more object) object {
	op := object{"operationId": id, "summary": e.name, "tags": []string{e.service}, "responses": e.answers()}
	var notes []string
	if len(e.versions) > 1 {
		notes = append(notes, "Versions "+strings.Join(e.versions, ", ")+".")
	}
	if e.idempotent {
		notes = append(notes, "May be repeated: calling it twice does no more than once.")
	}
	if len(notes) > 0 {
		op["description"] = strings.Join(notes, " ")
	}
	if e.idempotent {
		op["x-idempotent"] = true
	}
	maps.Copy(op, more)
	return op
}

func (e *endpoint) body() object {
	content := make(object)
	if e.streams[""] || e.streams["server"] {
		content["application/json"] = object{"schema": schemas(e.requests)}
		e.asIs(content, e.requests)
	}
	if e.takesStream() {
		content[ndjson] = items(schemas(e.requests))
	}
	return object{"content": content} // without a body it is an empty message
}

// asIs adds the content types in which the body of a call is no JSON.
func (e *endpoint) asIs(content object, bodies []field) {
	if !e.streams[""] {
		return
	}
	if e.proto() {
		content["application/protobuf"] = object{}
	}
	if slices.ContainsFunc(bodies, func(f field) bool { return f.typ == "bytes" }) {
		content["application/octet-stream"] = object{}
	}
}

// items describes a stream: the text of a whole one has no schema in OpenAPI 3.1.
func items(of object) object { return object{"schema": object{"type": "string"}, "x-itemSchema": of} }

// proto says whether the messages are protobuf's, which can be sent as such.
func (e *endpoint) proto() bool {
	for _, f := range append(slices.Clone(e.requests), e.responses...) {
		if !f.described().IsProto() {
			return false
		}
	}
	return true
}

// query describes the fields of the request as parameters, if they can be written so in all versions.
func (e *endpoint) query() ([]object, bool) {
	byName := make(map[string][]object)
	if e.takesStream() {
		return nil, false
	}
	for _, r := range e.requests {
		if r.message == nil || r.message.name != r.typ || !r.message.flat() {
			return nil, false
		}
		for _, f := range r.message.fields {
			byName[f.name] = append(byName[f.name], f.schema(false))
		}
	}
	parameters := []object{}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		parameters = append(parameters, object{"name": name, "in": "query", "schema": anyOf(byName[name]...)})
	}
	return parameters, true
}

func (e *endpoint) answers() object {
	content := make(object)
	answer := schemas(e.responses)
	if e.streams[""] || e.streams["client"] {
		content["application/json"] = object{"schema": answer}
		e.asIs(content, e.responses)
	}
	if e.streams["server"] || e.streams["both"] {
		content[eventStream] = items(answer)
		content[ndjson] = items(answer)
	}
	return object{"200": object{"description": "The answer", "content": content}, "default": object{"$ref": "#/components/responses/Problem"}}
}

// webSocket notes what OpenAPI has no words for.
func (d *document) webSocket(item object, e *endpoint, id string) {
	item["x-websocket"] = object{"send": schemas(e.requests), "receive": schemas(e.responses)}
	answers := e.answers() // without an Upgrade it is a stream of requests with nothing in it
	answers["101"] = object{"description": "The stream begins"}
	item["get"] = object{
		"operationId": d.ids.take(id + ".websocket"),
		"summary":     e.name,
		"description": "A WebSocket: each message is one item of the stream, as JSON; an empty one ends the requests. See x-websocket.",
		"tags":        []string{e.service},
		"responses":   answers,
	}
}

func schemas(fields []field) object {
	var all []object
	for _, f := range fields {
		all = append(all, f.schema(false))
	}
	return anyOf(all...)
}

// rpc describes /v1/rpc.
func (d *document) rpc() {
	body := object{
		"type":     "object",
		"required": []string{"service", "endpoint"},
		"properties": object{
			"service":  object{"type": "string", "examples": []string{"greeter"}},
			"endpoint": object{"type": "string", "examples": []string{"Greeter.Hello"}},
			"body":     object{"description": "the request"},
		},
	}
	if len(d.called) > 0 {
		body["anyOf"] = append(d.called, object{"description": "any other endpoint"})
	}
	d.tags = append(d.tags, object{"name": "any endpoint"})
	d.paths[gateway.ExplicitPath] = object{"post": object{
		"operationId": "rpc",
		"summary":     "Calls an endpoint by name",
		"tags":        []string{"any endpoint"},
		"parameters":  []object{timeout},
		"requestBody": object{"required": true, "content": object{"application/json": object{"schema": body}}},
		"responses": object{
			"200": object{"description": "The answer, or a stream of them", "content": object{
				"application/json": object{"schema": object{}},
				eventStream:        object{"schema": object{"type": "string"}},
				ndjson:             object{"schema": object{"type": "string"}},
			}},
			"default": object{"$ref": "#/components/responses/Problem"},
		},
	}}
}

func (d *document) object() object {
	d.schemas["Problem"] = problem
	return object{
		"openapi": "3.1.0",
		"info":    object{"title": "Services", "version": "1"},
		"paths":   d.paths,
		"tags":    d.tags,
		"components": object{
			"parameters": object{"Timeout": object{
				"name": "X-Request-Timeout", "in": "header", "schema": object{"type": "string", "pattern": `^[1-9][0-9]{0,5}(\.[0-9]{1,3})?(ms|s|m)?$`},
				"description": "the time for the call: 1.5s, 250ms or a number of seconds",
			}},
			"schemas": d.schemas,
			"responses": object{"Problem": object{
				"description": "What went wrong (RFC 9457)",
				"content": object{"application/problem+json": object{
					"schema": object{"$ref": "#/components/schemas/Problem"},
				}},
			}},
		},
	}
}

// timeout is a parameter of all calls.
var timeout = object{"$ref": "#/components/parameters/Timeout"}

// problem is gateway.Problem.
var problem = object{
	"type":     "object",
	"required": []string{"title", "status", "code"},
	"properties": object{
		"title":      object{"type": "string", "description": "of the status"},
		"status":     object{"type": "integer", "description": "of HTTP"},
		"code":       object{"type": "string", "description": "of the call, such as NotFound"},
		"detail":     object{"type": "string", "description": "what is wrong, and what to do"},
		"request_id": object{"type": "string", "description": "under which it is in the logs"},
	},
}
