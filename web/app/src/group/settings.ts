// SPDX-License-Identifier: Apache-2.0
// What this server says about group calls.

interface ServerConfig {
  /** Where the embedded build of Element Call is; empty when the operator has not put it anywhere. */
  element_call: string;
}

let asked: Promise<string> | undefined;

/** The address of Element Call's embedded build, with a slash at the end; empty when there is none. */
export function elementCall(): Promise<string> {
  asked ??= fetch('/config.json')
    .then(async (answer) => (answer.ok ? ((await answer.json()) as Partial<ServerConfig>).element_call : ''))
    .then((at) => (typeof at === 'string' && at ? new URL(at, location.href).href : ''))
    .catch(() => {
      asked = undefined; // asked again when the next room is opened
      return '';
    });
  return asked;
}
