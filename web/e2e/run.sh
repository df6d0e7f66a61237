#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: run.sh [FILE…]
# Runs the browser tests, by default all of them, one file after the other. A file that fails runs once more: several browsers with
# cameras and one server share a small machine. What fails twice fails; what failed once is named, so that somebody looks at it.
set -uo pipefail
cd "$(dirname "$0")"

[ $# -gt 0 ] || set -- *.test.mjs
failed=() flaky=()
for file in "$@"; do
	node --test --test-reporter=spec "$file" && continue
	echo "FAILED ONCE: $file; trying again"
	if node --test --test-reporter=spec "$file"; then flaky+=("$file"); else failed+=("$file"); fi
done
[ ${#flaky[@]} -eq 0 ] || echo "FLAKY (passed the second time): ${flaky[*]}"
[ ${#failed[@]} -eq 0 ] || { echo "FAILED: ${failed[*]}"; exit 1; }
