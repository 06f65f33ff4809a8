#!/bin/sh
# Installs Kafka for the tests: install.sh DEST puts its Java archives into DEST/libs, once. `make servers` calls it.
set -eu
[ $# = 1 ] || { echo "usage: install.sh DEST" >&2; exit 2; }
dest=$1
pom=$(dirname "$0")/pom.xml
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$pom")

if [ -e "$dest/libs/kafka_2.13-$version.jar" ]; then
	echo "kafka: $version is in $dest"
	exit 0
fi
command -v java >/dev/null || { echo "kafka: no java found; it needs version 17 or later (Debian: openjdk-17-jre-headless)" >&2; exit 1; }
command -v mvn >/dev/null || { echo "kafka: no mvn found, which fetches the archives (Debian: maven)" >&2; exit 1; }
major=$(java -version 2>&1 | sed -n '1s/[^"]*"\([0-9]*\).*/\1/p')
[ "${major:-0}" -ge 17 ] || { echo "kafka: java is version ${major:-unknown}; it needs 17 or later (Debian: openjdk-17-jre-headless)" >&2; exit 1; }

echo "kafka: fetching $version and what it depends on, about 45 MB"
rm -rf "$dest/new"
mkdir -p "$dest/new"
mvn --batch-mode --quiet --file "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
	-DincludeScope=runtime -DoutputDirectory="$(cd "$dest/new" && pwd)"
rm -rf "$dest/libs"
mv "$dest/new" "$dest/libs" # all or nothing
echo "kafka: $version installed in $dest"
