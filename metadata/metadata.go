// Package metadata carries pairs of strings beside the body of a call, from the caller's context to the handler's.
//
//	ctx = metadata.With(ctx, "tenant", "acme")   // caller
//	tenant := metadata.Get(ctx, "tenant")        // handler, in another process
//
// Keys are lower-cased. What a handler received is not passed on to the calls that it makes: it says what it passes on.
package metadata

import (
	"context"
	"maps"
	"strings"
)

type outgoing struct{}

// Incoming is the key under which the server's context answers the received pairs, as a map[string]string.
type Incoming struct{}

// With returns a context whose calls carry key and value, beside those that ctx has already.
func With(ctx context.Context, key, value string) context.Context {
	md := maps.Clone(Outgoing(ctx))
	if md == nil {
		md = make(map[string]string, 1)
	}
	md[strings.ToLower(key)] = value
	return context.WithValue(ctx, outgoing{}, md)
}

// WithAll is With for all of pairs at once. Their keys must be in lower case, and they must not be changed any more.
func WithAll(ctx context.Context, pairs map[string]string) context.Context {
	if before := Outgoing(ctx); len(before) > 0 {
		md := maps.Clone(before)
		maps.Copy(md, pairs)
		pairs = md
	}
	return context.WithValue(ctx, outgoing{}, pairs)
}

// Outgoing returns what calls with ctx carry. It must not be changed.
func Outgoing(ctx context.Context) map[string]string {
	md, _ := ctx.Value(outgoing{}).(map[string]string)
	return md
}

// Get returns one received value; "" if there is none.
func Get(ctx context.Context, key string) string { return All(ctx)[strings.ToLower(key)] }

// All returns everything that was received. It must not be changed.
func All(ctx context.Context) map[string]string {
	md, _ := ctx.Value(Incoming{}).(map[string]string)
	return md
}
