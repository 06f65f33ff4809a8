// The Consul server that the tests run against: a module of its own, so that nothing of it reaches those who use Micro.
module github.com/plugmicro/micro/internal/servers/consul

go 1.26

require github.com/hashicorp/consul v1.20.1

// Consul does not build with these.
exclude (
	github.com/hashicorp/go-msgpack v1.1.5
	github.com/hashicorp/go-msgpack v1.1.6
)
