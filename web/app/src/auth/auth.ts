// SPDX-License-Identifier: Apache-2.0
// Signing in and up with plain fetch, so that the first screen does not wait for the Matrix SDK.
import { askForMail, MailNeeded, MailSent, notOpened, proof, type Mail } from './mail.ts';
import { call, MatrixFailure } from './request.ts';
import type { Session } from './session.ts';

/** Thrown by signUp when the server asks for a registration token and none was given. */
export class TokenNeeded extends Error {
  constructor() {
    super('This server needs a registration token.');
  }
}

interface LoginAnswer {
  user_id: string;
  device_id: string;
  access_token: string;
  refresh_token?: string;
  expires_in_ms?: number;
}

interface Challenge {
  session?: string;
  flows?: { stages: string[] }[];
  completed?: string[];
}

function toSession(baseUrl: string, answer: Record<string, unknown>): Session {
  const a = answer as unknown as LoginAnswer;
  return {
    baseUrl,
    userId: a.user_id,
    deviceId: a.device_id,
    accessToken: a.access_token,
    refreshToken: a.refresh_token,
    expiresAt: a.expires_in_ms === undefined ? undefined : Date.now() + a.expires_in_ms,
  };
}

/** A name for this browser in the person's list of devices, e.g. `Trunkboard Web on Linux`. */
export function deviceName(userAgent: string): string {
  const systems: [RegExp, string][] = [
    [/Android/, 'Android'],
    [/iPhone|iPad/, 'iOS'],
    [/Mac OS X/, 'macOS'],
    [/Windows/, 'Windows'],
    [/Linux|X11/, 'Linux'],
  ];
  const system = systems.find(([pattern]) => pattern.test(userAgent))?.[1];
  return system ? `Trunkboard Web on ${system}` : 'Trunkboard Web';
}

/** Signs in with a password. `user` is a local name or a full user id. */
export async function signIn(baseUrl: string, user: string, password: string): Promise<Session> {
  const answer = await call(baseUrl, 'POST', '/_matrix/client/v3/login', {
    type: 'm.login.password',
    identifier: { type: 'm.id.user', user },
    password,
    initial_device_display_name: deviceName(navigator.userAgent),
    refresh_token: true,
  });
  return toSession(baseUrl, answer);
}

/** The registration flow with the fewest questions that this client can complete, or undefined. */
export function chooseFlow(flows: { stages: string[] }[]): string[] | undefined {
  // What each stage costs the person.
  const cost: Record<string, number> = { 'm.login.dummy': 1, 'm.login.registration_token': 10, 'm.login.email.identity': 100 };
  const total = (stages: string[]) => stages.reduce((sum, stage) => sum + cost[stage]!, 0);
  return flows
    .map((flow) => flow.stages)
    .filter((stages) => stages.every((stage) => Object.hasOwn(cost, stage)))
    .sort((a, b) => total(a) - total(b))[0];
}

/** What the person has given besides name and password. `mail` is set once a mail was sent. */
export interface Given {
  token?: string;
  email?: string;
  mail?: Mail;
}

/**
 * Makes an account and signs in. Walks through user-interactive authentication: the dummy stage, the registration token and the
 * e-mail address. Throws TokenNeeded or MailNeeded when the server asks for what is not given, and MailSent when its link has to be
 * opened before the same call, with that mail, goes on.
 */
export async function signUp(baseUrl: string, username: string, password: string, given: Given = {}): Promise<Session> {
  const request = {
    username,
    password,
    initial_device_display_name: deviceName(navigator.userAgent),
    refresh_token: true,
  };
  let auth: Record<string, unknown> | undefined;
  let tried = '';
  // One round per stage and one to learn the flows: a server that keeps asking is broken.
  for (let round = 0; round < 5; round++) {
    try {
      const body = auth ? { ...request, auth } : request;
      return toSession(baseUrl, await call(baseUrl, 'POST', '/_matrix/client/v3/register', body));
    } catch (error) {
      if (!(error instanceof MatrixFailure) || error.status !== 401 || !Array.isArray(error.body.flows)) throw error;
      const challenge = error.body as Challenge;
      const done = challenge.completed ?? [];
      const stages = chooseFlow(challenge.flows ?? []);
      if (!stages) throw new MatrixFailure('M_UNRECOGNIZED', 'This server asks for a sign-up step that Trunkboard does not know.', 401);
      const stage = stages.find((s) => !done.includes(s)) ?? stages[0]!;
      if (stage === tried) {
        if (stage === 'm.login.email.identity' && given.mail) throw notOpened(given.mail);
        const wrongToken = stage === 'm.login.registration_token';
        throw new MatrixFailure(error.code, wrongToken ? 'That registration token is not valid.' : error.message, 401);
      }
      tried = stage;
      auth = { type: stage, session: challenge.session };
      if (stage === 'm.login.registration_token') {
        if (!given.token) throw new TokenNeeded();
        auth.token = given.token;
      }
      if (stage === 'm.login.email.identity') {
        if (given.mail) Object.assign(auth, proof(given.mail));
        else if (given.email) throw new MailSent(await askForMail(baseUrl, 'register', given.email));
        else throw new MailNeeded();
      }
    }
  }
  throw new MatrixFailure('M_UNKNOWN', 'The server did not finish the sign-up.', 401);
}

/** An error message that a person can act on. */
export function explain(error: unknown): string {
  if (error instanceof MatrixFailure) {
    switch (error.code) {
      case 'M_FORBIDDEN':
        return error.status === 403 && /registration/i.test(error.message)
          ? 'This server does not take new accounts. Ask its administrator for one.'
          : 'That user name or password is not right.';
      case 'M_USER_IN_USE':
        return 'That user name is taken. Try another one.';
      case 'M_INVALID_USERNAME':
        return 'User names may have a–z, 0–9 and the signs . _ = - /';
      case 'M_WEAK_PASSWORD':
        return error.message || 'Please choose a stronger password.';
      case 'M_LIMIT_EXCEEDED':
        return 'Too many tries. Please wait a moment.';
      case 'M_THREEPID_IN_USE':
        return 'There is an account with that e-mail address already. Sign in, or choose “Forgot password?”.';
      case 'M_THREEPID_MEDIUM_NOT_SUPPORTED':
        return 'This server sends no mail. Ask whoever runs it to set a new password for you.';
      case 'M_THREEPID_NOT_FOUND':
        return 'No account here has that e-mail address.';
      case 'M_USER_DEACTIVATED':
        return 'This account has been closed.';
      default:
        return error.message;
    }
  }
  return error instanceof Error ? error.message : 'Something went wrong.';
}
