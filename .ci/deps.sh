#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that the tests use and that are not here yet. Does nothing on a machine that has them all.
set -euo pipefail

# command or path that proves it : package
needs=(
	/usr/lib/postgresql/*/bin/postgres:postgresql
	redis-server:redis-server
	chromium:chromium
	nft:nftables
	ip:iproute2
	turnutils_uclient:coturn
	unshare:util-linux
	curl:curl
	/usr/lib/python3/dist-packages/nio:python3-matrix-nio
)
missing=()
for need in "${needs[@]}"; do
	what=${need%:*} package=${need##*:}
	# shellcheck disable=SC2086 # the pattern of postgres is meant to expand
	[ -e "$what" ] || command -v $what >/dev/null 2>&1 || PATH=$PATH:/usr/sbin:/sbin command -v "$what" >/dev/null 2>&1 || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

command -v apt-get >/dev/null || { echo "these are needed by the tests, install them: ${missing[*]}" >&2; exit 1; }
root=()
[ "$(id -u)" -eq 0 ] || root=(sudo)
echo "installing for the tests: ${missing[*]}"
# The packages would start PostgreSQL, Redis and coturn as services; the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap '"${root[@]}" rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
	"${root[@]}" chmod 755 $policy
fi
"${root[@]}" apt-get update -q
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
