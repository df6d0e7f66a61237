#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: serve.sh turn|sfu|homeserver
# Runs one plane of Trunkboard in the foreground, as one process (exec), the way load generators want a server under test: rate
# limits and quotas off, cheap password hashes, loopback and private peers allowed, log level warn. Never for a server that others
# can reach. The binary is bin/trunkboard, or what TRUNKBOARD_BIN names. From the environment:
#	turn        LISTEN PORT RELAY SECRET REALM   STUN and TURN on LISTEN:PORT, relays on RELAY, REST credentials with SECRET
#	sfu         LISTEN PORT KEY KEY_SECRET   signalling on LISTEN:PORT at the root, media on LISTEN:MEDIA (7882)
#	homeserver  LISTEN PORT SECRET DATA          the whole product; SECRET is that of /_synapse/admin/v1/register, DATA a folder
# DATABASE, if set, is the homeserver's database.url; more settings may follow the plane as KEY=VALUE.
set -euo pipefail

plane=${1:-}
[ $# -gt 0 ] && shift
bin=${TRUNKBOARD_BIN:-$(cd "$(dirname "$0")/.." && pwd)/bin/trunkboard}
listen=${LISTEN:-127.0.0.1}
special=0.0.0.0/8,10.0.0.0/8,100.64.0.0/10,127.0.0.0/8,169.254.0.0/16,172.16.0.0/12,192.168.0.0/16,198.18.0.0/15,::1/128,fc00::/7,fe80::/10
settings=(
	limits.enabled=false log.level=warn shutdown.drain=1s
	turn.relay.allow="$special" turn.max_allocations_per_user=0 turn.max_allocations=0
)
only=()
case $plane in
turn)
	only=(--only turn)
	settings+=(
		data_dir="${DATA:-$(mktemp -d)}" listen.metrics="${METRICS:-}"
		turn.listen="$listen:${PORT:-3478}" turn.relay.addresses="${RELAY:-127.0.0.1}"
		turn.secret="${SECRET:-benchsecret}" turn.realm="${REALM:-bench}"
	)
	;;
homeserver)
	settings+=(
		data_dir="${DATA:-$(mktemp -d)}" listen.metrics="${METRICS:-}" listen.client="$listen:${PORT:-8008}"
		public_url="http://$listen:${PORT:-8008}" registration.mode=open registration.shared_secret="${SECRET:-benchsecret}"
		accounts.password_cost=minimum
	)
	[ -z "${DATABASE:-}" ] || settings+=(database.url="$DATABASE")
	;;
sfu)
	only=(--only sfu)
	settings+=(
		data_dir="${DATA:-$(mktemp -d)}" listen.metrics="${METRICS:-}" listen.client="$listen:${PORT:-7880}"
		sfu.listen_udp="$listen:${MEDIA:-7882}" sfu.listen_tcp="${MEDIA_TCP:-}" sfu.keys="${KEY:-devkey}=${KEY_SECRET:-secretsecretsecretsecretsecretsecret}" sfu.auto_create=true
	)
	;;
*)
	echo "usage: serve.sh turn|sfu|homeserver [KEY=VALUE…]" >&2
	exit 2
	;;
esac
[ -x "$bin" ] || { echo "serve.sh: there is no $bin; make build, or set TRUNKBOARD_BIN" >&2; exit 1; }
args=()
for s in "${settings[@]}" "$@"; do
	args+=(--set "$s")
done
exec "$bin" serve "${only[@]}" "${args[@]}"
