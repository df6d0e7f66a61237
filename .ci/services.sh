#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: .ci/services.sh COMMAND…
# Runs COMMAND with a PostgreSQL and a Redis of its own: Debian's binaries on free ports of 127.0.0.1, data in a temporary folder,
# both stopped and removed when COMMAND ends. COMMAND finds them in
#	TRUNKBOARD_TEST_POSTGRES   URL of a superuser, who may create databases
#	TRUNKBOARD_TEST_REDIS      URL
#	TRUNKBOARD_TEST_REQUIRED   1: a test that misses one of them fails instead of skipping
set -euo pipefail

dir=$(mktemp -d /tmp/trunkboard-test.XXXXXX)
chmod 755 "$dir"
postgres_bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
as_postgres=()
if [ "$(id -u)" -eq 0 ]; then # PostgreSQL refuses to run as root
	as_postgres=(runuser -u postgres --)
fi

stop() {
	trap - EXIT INT TERM
	[ -n "${redis_pid:-}" ] && kill "$redis_pid" 2>/dev/null && wait "$redis_pid" 2>/dev/null
	[ -f "$dir/postgres/postmaster.pid" ] && "${as_postgres[@]}" "$postgres_bin/pg_ctl" -D "$dir/postgres" -m immediate -s stop
	rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() {
	local port
	while port=$((20000 + RANDOM % 12000)); do # below the range that the kernel gives to outgoing connections
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo $port; return; }
	done
}

mkdir "$dir/postgres" "$dir/redis"
[ ${#as_postgres[@]} -eq 0 ] || chown postgres "$dir/postgres"
cd "$dir" # a folder that the user postgres may enter
"${as_postgres[@]}" "$postgres_bin/initdb" -D "$dir/postgres" -U trunkboard -A trust -E UTF8 --locale=C --no-sync >"$dir/initdb.log" || { cat "$dir/initdb.log" >&2; exit 1; }
# fsync off: these databases need not survive the machine; drills about power cuts start a server of their own.
for attempt in 1 2 3 4 5; do
	postgres_port=$(free_port)
	"${as_postgres[@]}" "$postgres_bin/pg_ctl" -D "$dir/postgres" -s -w -t 60 -l "$dir/postgres/log" start \
		-o "-c listen_addresses=127.0.0.1 -p $postgres_port -c unix_socket_directories='' -c fsync=off -c max_connections=300" && break
	[ "$attempt" -lt 5 ] || { cat "$dir/postgres/log" >&2; exit 1; }
done
for attempt in 1 2 3 4 5; do
	redis_port=$(free_port)
	redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$dir/redis" --save '' --appendonly no --loglevel warning >"$dir/redis/log" 2>&1 &
	redis_pid=$!
	for _ in $(seq 100); do
		[ "$(redis-cli -p "$redis_port" ping 2>/dev/null)" = PONG ] && kill -0 "$redis_pid" 2>/dev/null && break 2
		kill -0 "$redis_pid" 2>/dev/null || break
		sleep 0.05
	done
	[ "$attempt" -lt 5 ] || { cat "$dir/redis/log" >&2; exit 1; }
done
cd "$OLDPWD"

export TRUNKBOARD_TEST_POSTGRES="postgres://trunkboard@127.0.0.1:$postgres_port/postgres?sslmode=disable"
export TRUNKBOARD_TEST_REDIS="redis://127.0.0.1:$redis_port/0"
export TRUNKBOARD_TEST_REQUIRED=1
"$@"
