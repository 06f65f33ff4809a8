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

show "bin/micro gateway"
log=$(mktemp)
bin/micro gateway 2> >(tee "$log" >&2) &
gateway=$!
pids+=("$gateway")

# said WORD: what the gateway's own log says after WORD= where it begins to serve; nothing before. An answer on its port
# would not do: it may be of another process, that has the port already.
said() { sed -n "s/.* the gateway serves .*\b$1=\([^ \"]*\).*/\1/p" "$log"; }
serves_or_ended() { [ -n "$(said address)" ] || ! kill -0 "$gateway" 2>/dev/null; }

until_ok serves_or_ended
address=$(said address) admin=$(said admin)
rm -f "$log"
address=${address/#'[::]'/localhost}
if [ -z "$address" ]; then
	echo "The gateway did not start, its own line says why. All else goes on."
elif command -v curl >/dev/null; then
	show "curl -d '{\"name\":\"Ada\"}' $address/greeter/hello"
	answer=$(curl -sS -d '{"name":"Ada"}' "$address/greeter/hello") || true # printed whole: the gateway's log goes to the same place
	echo "$answer"
else
	echo "curl is not installed: see http://$address/greeter/hello?name=Ada in a browser."
fi

echo
if [ -n "$address" ]; then
	echo "Greeter and gateway go on running, until Ctrl-C.${admin:+ In a browser, see http://$admin.} In another terminal, try:"
	echo
	echo "  curl -d '{\"name\":\"Grace\"}' $address/greeter/hello"
else
	echo "Greeter goes on running, until Ctrl-C. In another terminal, try:"
	echo
fi
cat <<'END'
  bin/micro services greeter
  bin/micro call greeter Greeter.Hello '{"name":"Grace"}'
  bin/micro subscribe greetings
  bin/micro plugins
END
wait "${pids[0]}"
