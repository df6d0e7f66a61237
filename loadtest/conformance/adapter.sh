#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: adapter.sh SERVER_NAME DATA_DIR CS_ADDR FED_ADDR TLS_CERT TLS_KEY CA_CERT LOG_FILE
# Runs Trunkboard as one homeserver of a Complement run that starts servers as plain processes. It is run again with the same
# arguments to restart the server, which keeps its keys and database in DATA_DIR. The binary is bin/trunkboard, or what
# TRUNKBOARD_BIN names; CP_SHARED_SECRET is the secret of admin registration. The client API is plain HTTP on CS_ADDR, the
# federation port HTTPS on FED_ADDR.
set -euo pipefail
[ $# -eq 8 ] || { echo "usage: adapter.sh SERVER_NAME DATA_DIR CS_ADDR FED_ADDR TLS_CERT TLS_KEY CA_CERT LOG_FILE" >&2; exit 2; }
name=$1 data=$2 client=$3 federation=$4 certificate=$5 key=$6 authority=$7

bin=${TRUNKBOARD_BIN:-$(cd "$(dirname "$0")/../.." && pwd)/bin/trunkboard}
[ -x "$bin" ] || { echo "adapter.sh: there is no $bin; make build, or set TRUNKBOARD_BIN" >&2; exit 1; }
cd "$data"
settings=(
	server_name="$name" data_dir="$data" public_url="http://$client"
	listen.client="$client" listen.federation="$federation" listen.https= listen.metrics=
	tls.mode=files tls.certificate="$certificate" tls.key="$key"
	registration.mode=open registration.shared_secret="${CP_SHARED_SECRET:-complement}"
	media.preview_allow=127.0.0.0/8 # pages of the suite are on this machine
	federation.allow_private=127.0.0.0/8 federation.trusted_ca="$authority" # and so are its other servers
	rooms.default_version=11 # the suite writes creators into power levels, which version 12 forbids
	accounts.password_cost=minimum accounts.min_password=1 limits.enabled=false log.level=info shutdown.drain=1s
)
args=()
for s in "${settings[@]}"; do
	args+=(--set "$s")
done
exec "$bin" serve --only homeserver "${args[@]}" # exec: signals to the process group reach the server itself
