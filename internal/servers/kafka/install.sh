#!/usr/bin/env bash
# Installs Kafka for the tests: install.sh DEST puts its Java archives into DEST/libs, once. `make servers` calls it.
set -euo pipefail
[ $# = 1 ] || { echo "usage: install.sh DEST" >&2; exit 2; }
dest=$1
pom=$(dirname "$0")/pom.xml
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$pom")

if [ -e "$dest/libs/kafka_2.13-$version.jar" ] && [ -e "$dest/classes.jsa" ]; then
	echo "kafka: $version is in $dest"
	exit 0
fi
command -v java >/dev/null || { echo "kafka: no java found; it needs version 17 or later (Debian: openjdk-17-jre-headless)" >&2; exit 1; }
command -v mvn >/dev/null || { echo "kafka: no mvn found, which fetches the archives (Debian: maven)" >&2; exit 1; }
major=$(java -version 2>&1 | sed -n '1s/[^"]*"\([0-9]*\).*/\1/p')
[ "${major:-0}" -ge 17 ] || { echo "kafka: java is version ${major:-unknown}; it needs 17 or later (Debian: openjdk-17-jre-headless)" >&2; exit 1; }

if [ ! -e "$dest/libs/kafka_2.13-$version.jar" ]; then
	echo "kafka: fetching $version and what it depends on, about 45 MB"
	rm -rf "$dest/new" "$dest/classes.jsa"
	mkdir -p "$dest/new"
	mvn --batch-mode --quiet --file "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory="$(cd "$dest/new" && pwd)"
	rm -rf "$dest/libs"
	mv "$dest/new" "$dest/libs" # all or nothing
fi

# Java keeps the classes of this run in a form that it loads faster: each start takes half of the time from then on.
echo "kafka: starting it once"
dest=$(cd "$dest" && pwd)
run=$(mktemp -d)
trap 'kill "${pid:-}" 2>/dev/null || true; wait; rm -rf "$run"' EXIT
port=$((20000 + $$ % 10000))
mkdir "$run/data"
printf 'version=1\ncluster.id=bWljcm8tdGVzdHMtMDAwMA\nnode.id=1\ndirectory.id=bWljcm8tdGVzdHMtZGlyMQ\n' >"$run/data/meta.properties"
cat >"$run/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$port
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$((port + 1)),CONTROLLER://127.0.0.1:$port
log.dirs=$run/data
END
java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:ArchiveClassesAtExit="$dest/classes.jsa" -Dorg.apache.logging.log4j.level=INFO \
	-cp "$dest/libs/*" kafka.Kafka "$run/server.properties" >"$run/log" 2>&1 &
pid=$!
for _ in $(seq 300); do
	grep -q "Kafka Server started" "$run/log" && break
	kill -0 "$pid" 2>/dev/null || { echo "kafka: it does not start:" >&2; tail -5 "$run/log" >&2; exit 1; }
	sleep 0.2
done
kill "$pid"
wait "$pid" || true
echo "kafka: $version installed in $dest"
