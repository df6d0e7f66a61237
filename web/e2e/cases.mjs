// SPDX-License-Identifier: Apache-2.0
// For scripts that are no tests of Node's own: Go starts them (web/browsertest) and makes each case a subtest.

/** True once a case has failed. */
export let failed = false;

/**
 * Runs a case and prints it as a line of JSON: {"case", "error"}, or {"case", "note"} with how long it took and what `f` returns. After a
 * failure no other case runs: they build on each other. Returns whether all went well so far.
 */
export async function check(name, f) {
  if (!failed) await run(name, f);
  return !failed;
}

/** Runs a case that needs none of the others, as check does; a failure stops no other one. With the variable ONLY, a pattern, it picks cases. */
export async function checkAlone(name, f) {
  if (process.env.ONLY && !new RegExp(process.env.ONLY).test(name)) return;
  await run(name, f);
}

async function run(name, f) {
  const from = Date.now();
  try {
    const note = await f();
    const words = typeof note === 'string' ? note : JSON.stringify(note);
    console.log(JSON.stringify({ case: name, note: `${Date.now() - from} ms${words ? `: ${words}` : ''}` }));
  } catch (e) {
    failed = true;
    console.log(JSON.stringify({ case: name, error: String(e?.stack ?? e) }));
  }
}
