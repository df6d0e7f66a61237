// SPDX-License-Identifier: Apache-2.0
// What keeps this browser from making calls, one check each. They run in order, for later ones need what earlier ones found.
import type { Session } from '../auth/session.ts';
import { relayTrip, seenFrom, type Trip } from './probe.ts';

/** `good` needs nothing, `warning` works with limits, `broken` keeps calls from working, `skipped` could not be looked at. */
export type Verdict = 'good' | 'warning' | 'broken' | 'skipped';

export interface Finding {
  /** Stable name, for the list and for tests. */
  check: string;
  title: string;
  verdict: Verdict;
  /** What was seen, in a sentence. */
  text: string;
  /** What to do about it, if anything. */
  next?: string;
}

/** An ICE server as `/voip/turnServer` gives it. */
export interface Relay {
  uris: string[];
  username: string;
  password: string;
}

export interface Surroundings {
  session: Session | null;
  /** `fetch` that carries the session's token where an Authorization header is asked for. */
  fetch: typeof fetch;
}

/** Runs every check; `report` gets each finding as it comes. Ends early, without an error, when `signal` is aborted. */
export async function examine(around: Surroundings, report: (f: Finding) => void, signal: AbortSignal): Promise<void> {
  report(secureOrigin());
  if (signal.aborted) return;
  const { findings, reached } = await server(around);
  findings.forEach(report);
  if (!reached || signal.aborted) return;
  report(await wellKnown(around));
  if (signal.aborted) return;
  const relay = await relayOf(around);
  if ('verdict' in relay) {
    report(relay);
    return;
  }
  const ways = await Promise.all(
    relay.uris.map(async (uri) => {
      const trip = await relayTrip({ urls: uri, username: relay.username, credential: relay.password }, signal);
      return { uri, trip };
    }),
  );
  if (signal.aborted) return;
  ways.forEach(({ uri, trip }) => report(way(uri, trip)));
  const udp = relay.uris.find((uri) => /^turn:.*transport=udp/.test(uri));
  const mapped = udp ? await seenFrom(udp.replace(/^turn:/, 'stun:').replace(/\?.*$/, ''), signal) : [];
  if (signal.aborted) return;
  report(network(ways, mapped));
}

export function secureOrigin(secure = window.isSecureContext, devices = navigator.mediaDevices): Finding {
  const finding = { check: 'origin', title: 'This page may ask for camera and microphone' };
  if (secure && devices) return { ...finding, verdict: 'good', text: 'It came over a secure connection.' };
  return {
    ...finding,
    verdict: 'broken',
    text: `${location.origin} is not a secure origin, so browsers refuse camera and microphone.`,
    next: 'Open the server by https://. Whoever runs it sets tls.mode, or puts a reverse proxy with a certificate in front.',
  };
}

/** The API answers, and its clock agrees with this device's. */
async function server(around: Surroundings): Promise<{ findings: Finding[]; reached: boolean }> {
  const base = around.session?.baseUrl ?? location.origin;
  const finding = { check: 'server', title: 'The server answers' };
  let response: Response;
  const start = performance.now();
  try {
    response = await around.fetch(`${base}/_matrix/client/versions`, { cache: 'no-store' });
  } catch {
    return {
      reached: false,
      findings: [{ ...finding, verdict: 'broken', text: `${base} cannot be reached.`, next: 'Look at this device’s network. If other sites work, the server is down or something on the way blocks it.' }],
    };
  }
  const took = Math.round(performance.now() - start);
  if (!response.ok) {
    return {
      reached: false,
      findings: [
        { ...finding, verdict: 'broken', text: `It answers with status ${response.status}.`, next: 'Whoever runs the server finds the reason in its log; “trunkboard doctor” there says more.' },
      ],
    };
  }
  const findings: Finding[] = [{ ...finding, verdict: 'good', text: `In ${took} ms.` }];
  const date = response.headers.get('Date');
  if (date) findings.push(clock(Date.now() - Date.parse(date)));
  return { findings, reached: true };
}

/** Judges how far this device's clock is ahead of the server's, in milliseconds. */
export function clock(ahead: number): Finding {
  const finding = { check: 'clock', title: 'The clocks agree' };
  const seconds = Math.round(Math.abs(ahead) / 1000);
  if (seconds <= 60) return { ...finding, verdict: 'good', text: seconds <= 2 ? 'To the second.' : `${seconds} seconds apart.` };
  return {
    ...finding,
    verdict: 'warning',
    text: `This device’s clock is ${seconds} seconds ${ahead > 0 ? 'ahead of' : 'behind'} the server’s.`,
    next: 'Let this device set its time by itself. If it does, the server’s clock is wrong.',
  };
}

/** What `/.well-known/matrix/client` says leads back here. */
async function wellKnown(around: Surroundings): Promise<Finding> {
  const finding = { check: 'well-known', title: 'Other apps find this server' };
  try {
    const response = await around.fetch(`${location.origin}/.well-known/matrix/client`, { cache: 'no-store' });
    if (response.status === 404) return { ...finding, verdict: 'skipped', text: 'It publishes no well-known file; people type its address.' };
    const body = (await response.json()) as { 'm.homeserver'?: { base_url?: string } };
    return wellKnownLeads(body['m.homeserver']?.base_url, location.origin);
  } catch {
    return { ...finding, verdict: 'warning', text: 'Its /.well-known/matrix/client cannot be read.', next: 'Whoever runs the server looks at what answers that path.' };
  }
}

export function wellKnownLeads(base: string | undefined, here: string): Finding {
  const finding = { check: 'well-known', title: 'Other apps find this server' };
  if (!base) return { ...finding, verdict: 'warning', text: 'Its well-known file names no homeserver.', next: 'It has to say {"m.homeserver":{"base_url":"https://…"}}.' };
  const there = base.replace(/\/+$/, '');
  if (there === here) return { ...finding, verdict: 'good', text: `They are led to ${there}.` };
  return { ...finding, verdict: 'warning', text: `They are led to ${there}, and this page is on ${here}.`, next: 'Right if both are the same server. Else the file is stale: whoever runs the server corrects public_url.' };
}

/** The ways to the relay, as a calling client gets them. */
async function relayOf(around: Surroundings): Promise<Relay | Finding> {
  const finding = { check: 'relay', title: 'The relay' };
  const { session } = around;
  if (!session) {
    return { ...finding, verdict: 'skipped', text: 'The server tells the ways to its relay to signed-in people only.', next: 'Sign in first, in this browser, then open this page again.' };
  }
  const response = await around.fetch(`${session.baseUrl}/_matrix/client/v3/voip/turnServer`, { headers: { Authorization: `Bearer ${session.accessToken}` }, cache: 'no-store' });
  if (response.status === 401) return { ...finding, verdict: 'skipped', text: 'Your session has ended.', next: 'Sign in again, then open this page again.' };
  const body = (await response.json()) as Partial<Relay>;
  if (!response.ok || !body.uris?.length) {
    return { ...finding, verdict: 'broken', text: 'The server offers no relay.', next: 'Calls from strict networks fail without one. Whoever runs the server sets turn.listen.' };
  }
  return { uris: body.uris, username: body.username ?? '', password: body.password ?? '' };
}

const transports: Record<string, string> = { 'turn:udp': 'over UDP', 'turn:tcp': 'over TCP', 'turns:tcp': 'over TLS', 'turns:udp': 'over DTLS' };

/** "over TLS, port 443" of a TURN URI. */
export function describe(uri: string): string {
  const m = /^(turns?):(?:\[[^\]]+\]|[^:?]+)(?::(\d+))?(?:\?transport=(\w+))?/.exec(uri);
  if (!m) return uri;
  const [, scheme, port, transport] = m;
  return `${transports[`${scheme}:${transport ?? 'udp'}`] ?? transport}, port ${port ?? (scheme === 'turns' ? 5349 : 3478)}`;
}

export function way(uri: string, trip: Trip): Finding {
  const finding = { check: `relay ${uri}`, title: `The relay ${describe(uri)}` };
  if ('took' in trip) return { ...finding, verdict: 'good', text: `${Math.round(trip.took)} ms there and back, through it twice.` };
  const udp = /^turn:.*transport=udp/.test(uri);
  switch (trip.failed) {
    case 'unreachable':
      return {
        ...finding,
        verdict: udp ? 'warning' : 'broken',
        text: 'Nothing answers there.',
        next: udp
          ? 'Offices often block UDP; calls then take TCP or TLS. If UDP should work here, its port is closed in a firewall on the way or at the server.'
          : 'A firewall on the way or at the server closes that port.',
      };
    case 'refused':
      return { ...finding, verdict: 'broken', text: `It answers, and gives out no relay${trip.code ? ` (error ${trip.code})` : ''}.`, next: 'Whoever runs the server runs “trunkboard doctor” there: clock, secret and quota are the usual reasons.' };
    case 'silent':
      return { ...finding, verdict: 'broken', text: 'It gives out relays, but nothing gets from one to another.', next: 'Whoever runs the server checks turn.relay.addresses and opens the relay’s UDP ports in the firewall.' };
  }
}

/** What kind of network this is, from which ways were open and how the relay saw us. */
export function network(ways: { uri: string; trip: Trip }[], mapped: { local: string; seen: string }[]): Finding {
  const finding = { check: 'network', title: 'Your network' };
  const open = ways.filter(({ trip }) => 'took' in trip);
  if (open.length === 0) {
    return { ...finding, verdict: 'broken', text: 'No way to the relay is open from here.', next: 'Try another network. If it stays, the server’s ports are closed: port 443 with TLS gets through most firewalls.' };
  }
  if (!open.some(({ uri }) => /^turn:.*transport=udp/.test(uri))) {
    return { ...finding, verdict: 'warning', text: 'UDP is blocked. Calls work by TCP or TLS, with more delay when the line is bad.', next: 'On a network of your own, let UDP out.' };
  }
  const apart = new Set(mapped.map((m) => m.seen));
  if (mapped.length > 1 && apart.size > 1 && new Set(mapped.map((m) => m.local)).size === 1) {
    return { ...finding, verdict: 'warning', text: 'UDP gets out, but your router uses a new port for each destination (symmetric NAT), so calls go through the relay.', next: 'Nothing: the relay is there for this.' };
  }
  if (mapped.some((m) => m.seen !== m.local)) return { ...finding, verdict: 'good', text: 'UDP gets out, through an address translator as in most homes.' };
  return { ...finding, verdict: 'good', text: 'UDP gets out.' };
}
