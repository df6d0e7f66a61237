// SPDX-License-Identifier: Apache-2.0
import { afterEach, describe, expect, it, vi } from 'vitest';
import { chooseFlow, deviceName, explain, signIn, signUp, TokenNeeded } from './auth.ts';
import { MatrixFailure } from './request.ts';
import { askForMail, MailNeeded, MailSent, resetPassword } from './mail.ts';
import { saveSession, type Session } from './session.ts';
import { TokenKeeper } from './tokens.ts';

type Handler = (url: string, init: RequestInit) => { status: number; body: unknown };

/** Answers fetch from a function; returns the requests it saw. */
function server(handler: Handler): { url: string; init: RequestInit }[] {
  const seen: { url: string; init: RequestInit }[] = [];
  vi.stubGlobal('fetch', async (input: RequestInfo | URL, init: RequestInit = {}) => {
    seen.push({ url: String(input), init });
    const { status, body } = handler(String(input), init);
    return new Response(JSON.stringify(body), { status });
  });
  return seen;
}

afterEach(() => {
  vi.unstubAllGlobals();
  localStorage.clear();
});

const SESSION = { user_id: '@ann:x', device_id: 'D', access_token: 'A' };
const sent = (init: RequestInit) => JSON.parse(String(init.body)) as Record<string, never> & { auth?: { type: string; session: string; token?: string } };

describe('an e-mail address that has to be proved', () => {
  const flows = [{ stages: ['m.login.email.identity'] }];
  // A server that mails a link and takes the account once it was opened.
  const mailing = (opened: () => boolean) =>
    server((url, init) => {
      const body = sent(init) as unknown as { email?: string; auth?: { threepid_creds?: { sid: string; client_secret: string } } };
      if (url.endsWith('/requestToken')) return { status: 200, body: { sid: 'sid1' } };
      const creds = body.auth?.threepid_creds;
      if (opened() && creds?.sid === 'sid1' && creds.client_secret) return { status: 200, body: SESSION };
      return { status: 401, body: { session: 's', flows, errcode: 'M_UNAUTHORIZED' } };
    });

  it('is asked for, mailed to, and then lets the account be made', async () => {
    let opened = false;
    const seen = mailing(() => opened);
    await expect(signUp('http://x', 'ann', 'pw')).rejects.toBeInstanceOf(MailNeeded);
    const mailed = await signUp('http://x', 'ann', 'pw', { email: 'ann@x.org' }).catch((e: unknown) => e);
    expect(mailed).toBeInstanceOf(MailSent);
    const { mail } = mailed as MailSent;
    expect(seen.filter((r) => r.url.endsWith('/register/email/requestToken')).map((r) => sent(r.init))).toEqual([{ client_secret: mail.secret, email: 'ann@x.org', send_attempt: 1 }]);
    await expect(signUp('http://x', 'ann', 'pw', { email: 'ann@x.org', mail })).rejects.toThrow('not been opened');
    opened = true;
    expect(await signUp('http://x', 'ann', 'pw', { email: 'ann@x.org', mail })).toMatchObject({ userId: '@ann:x' });
  });

  it('lets a forgotten password be replaced, and not before the link was opened', async () => {
    let opened = false;
    const seen = mailing(() => opened);
    const mail = await askForMail('http://x', 'password', 'ann@x.org');
    expect(seen[0]!.url).toBe('http://x/_matrix/client/v3/account/password/email/requestToken');
    await expect(resetPassword('http://x', mail, 'new')).rejects.toThrow('not been opened');
    opened = true;
    await resetPassword('http://x', mail, 'new');
    expect(sent(seen.at(-1)!.init)).toMatchObject({ new_password: 'new', logout_devices: true, auth: { session: 's', type: 'm.login.email.identity' } });
  });
});

describe('signUp', () => {
  it('passes the dummy stage with the session of the challenge', async () => {
    const seen = server((_url, init) => (sent(init).auth ? { status: 200, body: SESSION } : { status: 401, body: { session: 's', flows: [{ stages: ['m.login.dummy'] }] } }));
    const session = await signUp('http://x', 'ann', 'pw');
    expect(session).toMatchObject({ userId: '@ann:x', deviceId: 'D', accessToken: 'A', baseUrl: 'http://x' });
    expect(sent(seen[1]!.init).auth).toEqual({ type: 'm.login.dummy', session: 's' });
  });

  it('asks for a registration token, then does both stages', async () => {
    const flows = [{ stages: ['m.login.registration_token', 'm.login.dummy'] }];
    server(() => ({ status: 401, body: { session: 's', flows } }));
    await expect(signUp('http://x', 'ann', 'pw')).rejects.toBeInstanceOf(TokenNeeded);
    const seen = server((_url, init) => {
      const { auth } = sent(init);
      if (auth?.type === 'm.login.dummy') return { status: 200, body: SESSION };
      return { status: 401, body: { session: 's', flows, completed: auth ? ['m.login.registration_token'] : [] } };
    });
    await signUp('http://x', 'ann', 'pw', { token: 'secret' });
    expect(seen.map((r) => sent(r.init).auth?.type)).toEqual([undefined, 'm.login.registration_token', 'm.login.dummy']);
    expect(sent(seen[1]!.init).auth?.token).toBe('secret');
  });

  it('says that a token is wrong instead of asking for ever', async () => {
    const seen = server(() => ({ status: 401, body: { errcode: 'M_UNAUTHORIZED', session: 's', flows: [{ stages: ['m.login.registration_token'] }] } }));
    await expect(signUp('http://x', 'ann', 'pw', { token: 'bad' })).rejects.toThrow('not valid');
    expect(seen.length).toBe(2);
  });

  it('refuses a stage it does not know', async () => {
    server(() => ({ status: 401, body: { session: 's', flows: [{ stages: ['m.login.recaptcha'] }] } }));
    await expect(signUp('http://x', 'ann', 'pw')).rejects.toThrow('does not know');
  });
});

it('prefers the flow with the fewest questions', () => {
  expect(chooseFlow([{ stages: ['m.login.registration_token'] }, { stages: ['m.login.dummy'] }])).toEqual(['m.login.dummy']);
  expect(chooseFlow([{ stages: ['m.login.recaptcha'] }])).toBeUndefined();
  expect(chooseFlow([])).toBeUndefined();
});

it('explains refusals of the server', async () => {
  server(() => ({ status: 403, body: { errcode: 'M_FORBIDDEN', error: 'Invalid username or password' } }));
  const error = await signIn('http://x', 'ann', 'pw').catch((e: unknown) => e);
  expect(error).toBeInstanceOf(MatrixFailure);
  expect(explain(error)).toBe('That user name or password is not right.');
  expect(explain(new MatrixFailure('M_FORBIDDEN', 'Registration is disabled', 403))).toContain('does not take new accounts');
  expect(explain(new MatrixFailure('M_USER_IN_USE', 'x', 400))).toContain('taken');
});

it('survives an answer that is not JSON and a server that is not there', async () => {
  vi.stubGlobal('fetch', async () => new Response('<html>', { status: 502 }));
  expect(explain(await signIn('http://x', 'a', 'b').catch((e: unknown) => e))).toBe('The server answered 502.');
  vi.stubGlobal('fetch', () => Promise.reject(new TypeError('failed')));
  expect(explain(await signIn('http://x', 'a', 'b').catch((e: unknown) => e))).toContain('cannot be reached');
});

it('names the device after its system', () => {
  expect(deviceName('Mozilla/5.0 (X11; Linux x86_64)')).toBe('Trunkboard Web on Linux');
  expect(deviceName('Mozilla/5.0 (Linux; Android 14)')).toBe('Trunkboard Web on Android');
  expect(deviceName('')).toBe('Trunkboard Web');
});

describe('TokenKeeper', () => {
  const session = (change: Partial<Session> = {}): Session => ({ baseUrl: 'http://x', userId: '@ann:x', deviceId: 'D', accessToken: 'old', refreshToken: 'r1', ...change });
  const authorised = { headers: { Authorization: 'Bearer whatever' } };
  const tokenOf = (init: RequestInit) => new Headers(init.headers).get('Authorization');

  it('renews an expired token once for many requests and repeats them', async () => {
    saveSession(session());
    const seen = server((url, init) => {
      if (url.endsWith('/refresh')) return { status: 200, body: { access_token: 'new', refresh_token: 'r2', expires_in_ms: 60_000 } };
      return tokenOf(init) === 'Bearer new' ? { status: 200, body: {} } : { status: 401, body: { errcode: 'M_UNKNOWN_TOKEN', soft_logout: true } };
    });
    const keeper = new TokenKeeper(session());
    const renewed = vi.fn();
    keeper.onRenewed = renewed;
    const answers = await Promise.all([keeper.fetch('http://x/a', authorised), keeper.fetch('http://x/b', authorised), keeper.fetch('http://x/c', authorised)]);
    expect(answers.map((a) => a.status)).toEqual([200, 200, 200]);
    expect(seen.filter((r) => r.url.endsWith('/refresh')).length).toBe(1);
    expect(keeper.accessToken).toBe('new');
    expect(renewed).toHaveBeenCalledOnce();
    expect(JSON.parse(localStorage.getItem('trunkboard.session')!)).toMatchObject({ accessToken: 'new', refreshToken: 'r2' });
  });

  it('renews before the token ends', async () => {
    const seen = server((url) => ({ status: 200, body: url.endsWith('/refresh') ? { access_token: 'new' } : {} }));
    await new TokenKeeper(session({ expiresAt: Date.now() + 1000 })).fetch('http://x/a', authorised);
    expect(seen.map((r) => r.url)).toEqual(['http://x/_matrix/client/v3/refresh', 'http://x/a']);
    expect(tokenOf(seen[1]!.init)).toBe('Bearer new');
  });

  it('takes the token that another tab got', async () => {
    saveSession(session({ accessToken: 'theirs', refreshToken: 'r9' }));
    const seen = server((_url, init) => (tokenOf(init) === 'Bearer theirs' ? { status: 200, body: {} } : { status: 401, body: { errcode: 'M_UNKNOWN_TOKEN' } }));
    expect((await new TokenKeeper(session()).fetch('http://x/a', authorised)).status).toBe(200);
    expect(seen.some((r) => r.url.endsWith('/refresh'))).toBe(false);
  });

  it('hands on the refusal when there is nothing to renew with, and requests without a token untouched', async () => {
    const seen = server(() => ({ status: 401, body: { errcode: 'M_UNKNOWN_TOKEN' } }));
    const keeper = new TokenKeeper(session({ refreshToken: undefined }));
    expect((await keeper.fetch('http://x/a', authorised)).status).toBe(401);
    await keeper.fetch('http://x/b');
    expect(seen.map((r) => tokenOf(r.init))).toEqual(['Bearer old', null]);
  });
});
