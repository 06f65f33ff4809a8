package xray

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/plugmicro/micro/internal/clip"
)

// fields are attributes by their keys. What a part of a document is made of is dropped from them; the rest is shown as it is.
type fields map[attribute.Key]attribute.Value

func fieldsOf(attributes []attribute.KeyValue) fields {
	f := make(fields, len(attributes))
	for _, a := range attributes {
		f[a.Key] = a.Value
	}
	return f
}

// text is the first that is there; of a list, its first element.
func (f fields) text(keys ...attribute.Key) string {
	for _, key := range keys {
		v, ok := f[key]
		if !ok {
			continue
		}
		if v.Type() != attribute.STRINGSLICE {
			return v.String()
		}
		if list := v.AsStringSlice(); len(list) > 0 {
			return list[0]
		}
	}
	return ""
}

func (f fields) short(keys ...attribute.Key) string { return clip.Prefix(f.text(keys...), maxText) }

func (f fields) number(keys ...attribute.Key) int64 {
	n, err := strconv.ParseInt(f.text(keys...), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func (f fields) drop(keys ...attribute.Key) {
	for _, key := range keys {
		delete(f, key)
	}
}

func (f fields) keys() []attribute.Key { return slices.Sorted(maps.Keys(f)) }

// callee says what is called, as the service map is to name it.
func callee(f fields, span string) (name, namespace string, aws *awsFields) {
	if f.text("rpc.system", "rpc.system.name") == "aws-api" {
		a := awsFields{
			Operation: f.short("rpc.method"),
			Region:    f.short("cloud.region", "aws.region"),
			RequestID: f.short("aws.request_id"),
			QueueURL:  f.short("aws.sqs.queue.url", "messaging.url"),
			Table:     f.short("aws.dynamodb.table_names"),
		}
		service := f.text("rpc.service")
		if service == "" { // S3/GetObject
			service, a.Operation, _ = strings.Cut(a.Operation, "/")
		}
		return cleanName(cmp.Or(service, span)), "aws", &a
	}
	name = f.text("service.peer.name", "peer.service")
	if db := f.text("db.namespace"); name == "" && db != "" {
		name = db
		if host := f.text("server.address"); host != "" {
			name += "@" + host
		}
	}
	if u, err := url.Parse(f.text("url.full")); name == "" && err == nil {
		name = u.Host // with the port, as X-Ray's SDKs have it
	}
	if name == "" {
		name = f.text("rpc.service", "messaging.destination.name", "server.address")
	}
	return cleanName(cmp.Or(name, span)), "remote", nil
}

// httpOf is the request and its answer; a subsegment has less of them than a segment.
func httpOf(f fields, segment bool) *httpFields {
	method := f.short("http.request.method")
	if method == "" {
		return nil
	}
	h := &httpFields{Request: &httpRequest{Method: method, URL: clip.Prefix(urlOf(f), maxText)}}
	if segment {
		peer := f.text("network.peer.address")
		h.Request.ClientIP = cmp.Or(f.short("client.address"), peer)
		h.Request.ForwardedFor = peer != "" && h.Request.ClientIP != peer
		h.Request.UserAgent = f.short("user_agent.original")
		f.drop("network.peer.address", "client.address", "user_agent.original")
	}
	code := f.number("http.response.status_code")
	length := f.number("http.response.body.size", "http.response.header.content-length")
	if code != 0 || length != 0 {
		h.Response = &httpResponse{Status: code, ContentLength: length}
	}
	f.drop("http.request.method", "http.response.status_code", "http.response.body.size", "http.response.header.content-length",
		"url.full", "url.scheme", "url.path", "url.query", "server.address", "server.port")
	return h
}

// urlOf is the address without what may be secret in it: the query, the user and the password.
func urlOf(f fields) string {
	if full := f.text("url.full"); full != "" {
		u, err := url.Parse(full)
		if err != nil {
			return ""
		}
		u.User, u.RawQuery, u.ForceQuery, u.Fragment = nil, "", false, ""
		return u.String()
	}
	host := f.text("server.address")
	if host == "" {
		return f.text("url.path")
	}
	scheme := cmp.Or(f.text("url.scheme"), "http")
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]"
	}
	if port := f.number("server.port"); port != 0 && !(scheme == "http" && port == 80 || scheme == "https" && port == 443) {
		host += ":" + strconv.FormatInt(port, 10)
	}
	return scheme + "://" + host + f.text("url.path")
}

func sqlOf(f fields) *sqlFields {
	kind := f.short("db.system.name", "db.system")
	if kind == "" {
		return nil
	}
	s := &sqlFields{Type: kind, User: f.short("db.user"), Query: f.short("db.query.text", "db.statement")}
	if host := f.text("server.address"); host != "" {
		if port := f.text("server.port"); port != "" {
			host += ":" + port
		}
		s.URL = clip.Prefix(host+"/"+f.text("db.namespace"), maxText)
	}
	f.drop("db.system.name", "db.system", "db.user", "db.query.text", "db.statement", "db.namespace", "server.address", "server.port")
	return s
}

func awsOf(f fields) awsFields {
	a := awsFields{AccountID: f.short("cloud.account.id")}
	if c := f.short("container.name", "container.id"); c != "" && f.text("cloud.platform") == "aws_ecs" {
		a.ECS = &awsContainer{Container: c}
	}
	if id := f.short("host.id"); id != "" && f.text("cloud.platform") == "aws_ec2" {
		a.EC2 = &awsInstance{ID: id, Zone: f.short("cloud.availability_zone")}
	}
	return a
}
