// SPDX-License-Identifier: Apache-2.0
// For scripts that are no tests of Node's own: Go starts them (web/browsertest) and makes each case a subtest.

/** True once a case has failed. */
export let failed = false;

/**
 * Runs a case and prints it as a line of JSON: {"case", "error"}, or {"case", "note"} with how long it took and what `f` returns. After a
 * failure no other case runs: they build on each other. Returns whether all went well so far.
 */
export async function check(name, f) {
  if (failed) return false;
  const from = Date.now();
  try {
    const note = await f();
    console.log(JSON.stringify({ case: name, note: `${Date.now() - from} ms${note ? `: ${note}` : ''}` }));
  } catch (e) {
    failed = true;
    console.log(JSON.stringify({ case: name, error: String(e?.stack ?? e) }));
  }
  return !failed;
}
