#!/usr/bin/env bash
# install.sh: puts the real servers that the tests need under .servers, those that are not there yet.
set -euo pipefail
cd "$(dirname "$0")"
failed=()
for server in consul kafka pebble rabbitmq; do
	"$server/install.sh" "../../.servers/$server" || failed+=("$server")
done
if [ ${#failed[@]} -gt 0 ]; then
	echo "not installed: ${failed[*]}; their tests are skipped, and fail with MICRO_REQUIRE_SERVERS=1" >&2
	exit 1
fi
