// SPDX-License-Identifier: Apache-2.0

/** What a server says begins small and ends without a full stop. */
function sentence(text: string): string {
  const whole = text.trim();
  return whole.charAt(0).toUpperCase() + whole.slice(1) + (/[.!?…]$/.test(whole) ? '' : '.');
}

/** What went wrong, for the person who tried it. Errors of the SDK are read by their fields: their message is full of codes and addresses. */
export function wentWrong(error: unknown): string {
  if (!(error instanceof Error)) return 'That did not work.';
  const { errcode, data, httpStatus } = error as { errcode?: string; data?: { error?: unknown }; httpStatus?: number };
  if (errcode === 'M_LIMIT_EXCEEDED') return 'Too many tries. Please wait a moment.';
  if (typeof data?.error === 'string' && data.error !== '') return sentence(data.error);
  if (errcode !== undefined || httpStatus !== undefined) return `The server did not do it${httpStatus ? ` (${httpStatus})` : ''}.`;
  if (error.name === 'ConnectionError' || error instanceof TypeError) return 'The server cannot be reached. Check your connection and try again.';
  return sentence(error.message || 'That did not work');
}
