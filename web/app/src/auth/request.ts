// SPDX-License-Identifier: Apache-2.0
// One request to the homeserver with plain fetch, before there is a Matrix SDK.

/** An answer of the homeserver that is not a success. `code` is the Matrix errcode, or `NETWORK`. */
export class MatrixFailure extends Error {
  readonly code: string;
  readonly status: number;
  readonly body: Record<string, unknown>;
  constructor(code: string, message: string, status: number, body: Record<string, unknown> = {}) {
    super(message);
    this.code = code;
    this.status = status;
    this.body = body;
  }
}

/** Sends a request and gives the answer's JSON; throws MatrixFailure for every answer that is no success, and when none came. */
export async function call(
  baseUrl: string,
  method: 'GET' | 'POST',
  path: string,
  body?: unknown,
): Promise<Record<string, unknown>> {
  let response: Response;
  try {
    response = await fetch(baseUrl + path, {
      method,
      headers: body === undefined ? undefined : { 'Content-Type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new MatrixFailure('NETWORK', 'The server cannot be reached. Check your connection and try again.', 0);
  }
  const answer = (await response.json().catch(() => ({}))) as Record<string, unknown>;
  if (!response.ok) {
    const code = typeof answer.errcode === 'string' ? answer.errcode : 'M_UNKNOWN';
    const text = typeof answer.error === 'string' ? answer.error : `The server answered ${response.status}.`;
    throw new MatrixFailure(code, text, response.status, answer);
  }
  return answer;
}
