#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: retry.sh ARGUMENTS-OF-GO-TEST…
# Runs go test. Packages with a failure run once more, one after the other: real browsers, real sockets and drills that lose packets by
# chance share a small machine here. What fails twice fails; what failed once is named, so that somebody looks at it.
set -uo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
go test "$@" 2>&1 | tee "$log" && exit
mapfile -t again < <(sed -nE 's/^FAIL\t([^ \t]+)\t[0-9.]+s$/\1/p' "$log" | sort -u)
# A package that does not build, a panic of the whole run or a race is no accident.
if [ ${#again[@]} -eq 0 ] || [ ${#again[@]} -gt 3 ] || grep -qE '\[(build|setup) failed\]|WARNING: DATA RACE|^panic: ' "$log"; then
	exit 1
fi
mapfile -t failed < <(sed -nE 's/^ *--- FAIL: ([^ ]+) .*/\1/p' "$log" | sort -u)
echo "FAILED ONCE: ${failed[*]}; trying again: ${again[*]}"
go test -count=1 -p 1 -timeout 20m "${again[@]}" || exit 1
echo "FLAKY (passed the second time): ${failed[*]}"
