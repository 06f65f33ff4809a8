#!/usr/bin/env bash
# install.sh FOLDER: builds the Consul server from its Go module into FOLDER.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")"
version=$(sed -n 's/^require .* v//p' go.mod)
if [[ $("$folder/consul" version 2>/dev/null) == "Consul v$version"* ]]; then
	echo "Consul $version is there"
	exit
fi
echo "building Consul $version from its Go module: some minutes, once"
GOWORK=off go build -ldflags="-s -w" -o "$folder/consul.new" github.com/hashicorp/consul
mv "$folder/consul.new" "$folder/consul"
echo "Consul $version is built"
