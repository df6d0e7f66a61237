#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: fetch.sh FOLDER
# Puts Debian sid with matrix-synapse into FOLDER/sid, which must stand outside the repository, and prints the version. Run again it
# only prints. Needs root (debootstrap and chroot) and a Debian mirror: MIRROR, or deb.debian.org.
set -euo pipefail
folder=${1:?usage: fetch.sh FOLDER}
mirror=${MIRROR:-http://deb.debian.org/debian}
mkdir -p "$folder"
root=$(cd "$folder" && pwd)/sid
version() { chroot "$root" python3 -c 'import synapse; print("Synapse", synapse.__version__)'; }
if [ -e "$root/.complete" ]; then
	version
	exit
fi
[ "$(id -u)" = 0 ] || { echo "fetch.sh: debootstrap needs root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "fetch.sh: apt-get install debootstrap" >&2; exit 1; }
rm -rf "$root"
echo "Fetching Debian sid into $root; this takes some minutes."
debootstrap --variant=minbase --include=ca-certificates sid "$root" "$mirror" >"$folder/debootstrap.log" 2>&1 ||
	{ tail -n 20 "$folder/debootstrap.log" >&2; exit 1; }
# In a second step: debootstrap does not resolve the virtual packages that python3-cryptography depends on.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # nothing is started by its installation
chmod +x "$root/usr/sbin/policy-rc.d"
DEBIAN_FRONTEND=noninteractive chroot "$root" sh -c 'apt-get update -q && apt-get install -q -y --no-install-recommends matrix-synapse' \
	>"$folder/apt.log" 2>&1 || { tail -n 20 "$folder/apt.log" >&2; exit 1; }
touch "$root/.complete"
version
