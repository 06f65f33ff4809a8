package router

import "github.com/plugmicro/micro/gateway"

var _ gateway.Last = (*Router)(nil)

// EndsChain implements gateway.Last: a request that a route takes is answered here.
func (m *Router) EndsChain() {}
