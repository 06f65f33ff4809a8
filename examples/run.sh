#!/usr/bin/env bash
# What "make run" shows: a service, a caller, a subscriber and the gateway, processes that find each other on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."

pids=()
stop() {
	trap - EXIT INT TERM
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait
}
trap stop EXIT
trap 'stop; exit 0' INT TERM

# until_ok COMMAND...: waits until it succeeds, ten seconds at most.
until_ok() {
	for _ in $(seq 100); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	echo "gave up waiting for: $*" >&2
	"$@"
}

show() {
	echo
	echo "\$ $*"
}

show "bin/greeter"
bin/greeter &
pids+=($!)
until_ok bin/micro services greeter

show "bin/micro call greeter Greeter.Hello '{\"name\":\"Ada\"}'"
bin/micro call greeter Greeter.Hello '{"name":"Ada"}'

show "bin/micro subscribe greetings"
events=$(mktemp)
bin/micro subscribe greetings -v >"$events" 2>"$events.log" &
pids+=($!)
until_ok grep -q subscribed "$events.log"
show "bin/micro publish greetings '{\"name\":\"Ada\"}'"
bin/micro publish greetings '{"name":"Ada"}'
until_ok test -s "$events"
cat "$events"
rm -f "$events" "$events.log"

address=${MICRO_GATEWAY_ADDRESS:-localhost:8080}
show "bin/micro gateway"
bin/micro gateway &
gateway=$!
pids+=("$gateway")
listens() { (exec 3<>"/dev/tcp/${address%:*}/${address##*:}") 2>/dev/null || ! kill -0 "$gateway" 2>/dev/null; }
until_ok listens
if ! kill -0 "$gateway" 2>/dev/null; then
	echo "The gateway did not start, the line before says why. All else goes on."
elif command -v curl >/dev/null; then
	show "curl -d '{\"name\":\"Ada\"}' localhost:8080/greeter/hello"
	curl -sS -d '{"name":"Ada"}' "$address/greeter/hello"
	echo
else
	echo "curl is not installed: see http://$address/greeter/hello?name=Ada in a browser."
fi

cat <<'EOF'

Greeter and gateway go on running, until Ctrl-C. In a browser, see http://localhost:8081. In another terminal, try:

  curl -d '{"name":"Grace"}' localhost:8080/greeter/hello
  bin/micro services greeter
  bin/micro call greeter Greeter.Hello '{"name":"Grace"}'
  bin/micro subscribe greetings
  bin/micro plugins
EOF
wait "${pids[0]}"
