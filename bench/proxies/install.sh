#!/usr/bin/env bash
# install.sh: builds the proxies that "go run . -only gateway" compares the gateway with, from their Go modules, under
# .servers. nginx is a package of the system. What is not there is reported as not measured.
set -euo pipefail
cd "$(dirname "$0")"
servers=$(mkdir -p ../../.servers && cd ../../.servers && pwd)
export GOWORK=off
caddy=2.11.9
traefik=3.7.13

build_caddy() {
	if go version -m "$servers/caddy/caddy" 2>/dev/null | grep -q "caddy/v2\s*v$caddy\s"; then
		echo "Caddy $caddy is there"
		return
	fi
	echo "building Caddy $caddy from its Go module: some minutes, once"
	GOBIN=$servers/caddy go install -ldflags="-s -w" "github.com/caddyserver/caddy/v2/cmd/caddy@v$caddy"
	echo "Caddy $caddy is built"
}

# Traefik's module does not build as it is: a module that go.mod replaces by a folder is not part of it, a replacement is not
# everywhere to be had, and neither are some of the 200 SDKs by which it gets certificates. Requests pass through none of them.
build_traefik() {
	if [[ $("$servers/traefik/traefik" version 2>/dev/null) == *"$traefik"* ]]; then
		echo "Traefik $traefik is there"
		return
	fi
	echo "building Traefik $traefik from its Go module, without DNS providers: some minutes, once"
	local from src
	from=$(cd / && go mod download -json "github.com/traefik/traefik/v3@v$traefik" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	src=$(mktemp -d)
	trap "rm -rf '$src'" EXIT
	cp -r "$from/." "$src"
	chmod -R u+w "$src"
	mkdir -p "$src/pkg/config/dynamic/ext" "$src/pkg/nodns"
	printf 'module github.com/traefik/traefik/dynamic/ext\n\ngo 1.23\n' >"$src/pkg/config/dynamic/ext/go.mod"
	cat >"$src/pkg/config/dynamic/ext/ext.go" <<-'GO'
		package ext

		type (
			HTTP      struct{}
			Router    struct{}
			RouterIng struct{}
		)

		func (RouterIng) ToRouter() Router { return Router{} }
	GO
	cat >"$src/pkg/nodns/nodns.go" <<-'GO'
		package nodns

		import (
			"errors"

			"github.com/go-acme/lego/v5/challenge"
		)

		func NewDNSChallengeProviderByName(string) (challenge.Provider, error) {
			return nil, errors.New("built without DNS providers")
		}
	GO
	sed -i 's#"github.com/go-acme/lego/v5/providers/dns"#dns "github.com/traefik/traefik/v3/pkg/nodns"#' "$src/pkg/provider/acme/provider.go"
	(
		cd "$src"
		go mod edit -replace github.com/abbot/go-http-auth=github.com/containous/go-http-auth@v0.4.1-0.20200324110947-a37a7636d23e
		go build -mod=mod -buildvcs=false -trimpath \
			-ldflags="-s -w -X github.com/traefik/traefik/v3/pkg/version.Version=$traefik" -o "$servers/traefik/traefik" ./cmd/traefik
	)
	echo "Traefik $traefik is built"
}

if [ $# -gt 0 ]; then
	"build_$1"
	exit
fi
failed=()
./install.sh caddy || failed+=(Caddy)
./install.sh traefik || failed+=(Traefik)
[ -x /usr/sbin/nginx ] || command -v nginx >/dev/null || failed+=("nginx (apt-get install nginx)")
if [ ${#failed[@]} -gt 0 ]; then
	echo "not installed: ${failed[*]}; they are reported as not measured" >&2
	exit 1
fi
