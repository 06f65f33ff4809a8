#!/bin/bash
# Puts RabbitMQ and the parts of Erlang that it needs into a folder, from Debian's packages, without root:
#
#	internal/servers/rabbitmq/install.sh .servers/rabbitmq
#
# Nothing is installed in the system; removing the folder removes it. A second run does nothing.
set -euo pipefail

dest=${1:?usage: install.sh DEST}
packages=(rabbitmq-server erlang-base
	erlang-{asn1,crypto,eldap,inets,mnesia,os-mon,parsetools,public-key,runtime-tools,ssl,syntax-tools,tools,xmerl})

say() { echo "rabbitmq: $*"; }
fail() {
	echo "rabbitmq: cannot be installed: $*" >&2
	exit 1
}

if [ -f "$dest/installed" ]; then
	say "$(cat "$dest/installed") is in $dest already"
	exit 0
fi
for tool in apt-get dpkg-deb setpriv; do
	command -v "$tool" >/dev/null || fail "there is no $tool. It comes from Debian's packages, so this needs Debian or one of its descendants"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{debs,root,lists/partial,cache/archives/partial}
cd "$work/debs"

# The lists of the system are used if there are any; else new ones are fetched, which needs no root in a folder of our own.
own=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache")
say "downloading ${#packages[@]} packages"
if ! apt-get -qq download "${packages[@]}" 2>"$work/error"; then
	say "the package lists of this system are of no use, fetching new ones"
	apt-get "${own[@]}" -qq update || fail "apt-get update failed"
	apt-get "${own[@]}" -qq download "${packages[@]}" || fail "apt-get download failed"
fi
for deb in *.deb; do
	say "unpacking $deb"
	dpkg-deb -x "$deb" "$work/root"
done
version=$(dpkg-deb -f rabbitmq-server_*.deb Version)
cd "$OLDPWD"

# What starts it expects these.
erlexec=$(echo "$work"/root/usr/lib/erlang/erts-*/bin/erlexec)
rabbit=$(echo "$work"/root/usr/lib/rabbitmq/lib/rabbitmq_server-*)
[ -x "$erlexec" ] && [ -d "$rabbit/plugins" ] || fail "the packages do not contain what they did in Debian 12"

# Without plugins it starts in less than half the time: Erlang looks for each module in the folders of all of them.
needed=(amqp10_common aten credentials_obfuscation cuttlefish enough gen_batch_server getopt jsx observer_cli osiris ra rabbit
	rabbit_common rabbitmq_prelaunch ranch recon seshat stdout_formatter syslog sysmon_handler systemd)
mkdir "$rabbit/needed"
for app in "${needed[@]}"; do
	mv "$rabbit/plugins/$app"-[0-9]* "$rabbit/needed/" || fail "there is no $app in the packages"
done
rm -rf "$rabbit/plugins"
mv "$rabbit/needed" "$rabbit/plugins"

rm -rf "$dest"
mkdir -p "$dest"
mv "$work/root/usr/lib/erlang" "$dest/erlang"
mv "$rabbit" "$dest/rabbitmq"
ln -s "$(basename "$(dirname "$(dirname "$erlexec")")")" "$dest/erlang/erts"
echo "RabbitMQ $version" >"$dest/installed"
say "RabbitMQ $version is in $dest"
