// SPDX-License-Identifier: Apache-2.0
// Proof of an e-mail address: the server mails a link, and what it asked for goes on once the link has been opened
// (client-server API, "Email-based (identity / homeserver)" and "Password Management").
import { call, MatrixFailure } from './request.ts';

/** A mail that was asked for. `sid` and `secret` prove the address once its link has been opened. */
export interface Mail {
  address: string;
  secret: string;
  sid: string;
}

/** Thrown when the server wants an e-mail address and none was given. */
export class MailNeeded extends Error {
  constructor() {
    super('This server wants an e-mail address.');
  }
}

/** Thrown when a mail was sent whose link has to be opened first. */
export class MailSent extends Error {
  readonly mail: Mail;
  constructor(mail: Mail) {
    super('A mail was sent.');
    this.mail = mail;
  }
}

/** The authentication dictionary that shows that the link was opened. */
export function proof(mail: Mail): Record<string, unknown> {
  return { type: 'm.login.email.identity', threepid_creds: { sid: mail.sid, client_secret: mail.secret } };
}

/** Asks the server to mail a link; `again` counts up when the person asks for another mail. */
export async function askForMail(baseUrl: string, purpose: 'register' | 'password', address: string, again = 1, secret: string = crypto.randomUUID()): Promise<Mail> {
  const path = purpose === 'register' ? '/_matrix/client/v3/register/email/requestToken' : '/_matrix/client/v3/account/password/email/requestToken';
  const answer = await call(baseUrl, 'POST', path, { client_secret: secret, email: address, send_attempt: again });
  if (typeof answer.sid !== 'string') throw new MatrixFailure('M_UNKNOWN', 'The server did not say how to go on.', 500);
  return { address, secret, sid: answer.sid };
}

/**
 * Sets a new password for the account whose e-mail address was proved. Sessions elsewhere end: whoever forgot a password may have lost it
 * to somebody.
 */
export async function resetPassword(baseUrl: string, mail: Mail, password: string): Promise<void> {
  const request = { new_password: password, logout_devices: true };
  let session: string | undefined;
  try {
    await call(baseUrl, 'POST', '/_matrix/client/v3/account/password', request);
    return;
  } catch (error) {
    if (!(error instanceof MatrixFailure) || error.status !== 401) throw error;
    session = typeof error.body.session === 'string' ? error.body.session : undefined;
  }
  try {
    await call(baseUrl, 'POST', '/_matrix/client/v3/account/password', { ...request, auth: { ...proof(mail), session } });
  } catch (error) {
    throw error instanceof MatrixFailure && error.status === 401 ? notOpened(mail) : error;
  }
}

/** What to say while the link still waits in the mailbox. */
export function notOpened(mail: Mail): MatrixFailure {
  return new MatrixFailure('M_THREEPID_AUTH_FAILED', `The link in the mail to ${mail.address} has not been opened yet. Open it, then go on here.`, 401);
}
