#!/usr/bin/env bash
# install.sh FOLDER: builds the ACME server Pebble, and the name server that comes with it, from their Go module into FOLDER.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")"
version=$(sed -n 's/^require .*pebble.* v//p' go.mod)
if [[ $(cat "$folder/version" 2>/dev/null) == "$version" ]]; then
	echo "Pebble $version is there"
	exit
fi
echo "building Pebble $version from its Go module"
GOWORK=off go build -ldflags="-s -w" -o "$folder/" github.com/letsencrypt/pebble/v2/cmd/pebble github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv
echo "$version" >"$folder/version"
echo "Pebble $version is built"
