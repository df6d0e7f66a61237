// SPDX-License-Identifier: Apache-2.0
// Small WebRTC sessions of this page with itself, each over one given way.

/** One packet's way through the relay and back, or why there was none. */
export type Trip = { took: number } | { failed: 'unreachable' | 'refused' | 'silent'; code?: number };

/** How long one way may take until it counts as closed. */
const PATIENCE_MS = 12_000;
const PINGS = 10;

/** Connects two ends of this page through relays at `server` only, and times packets between them. */
export async function relayTrip(server: RTCIceServer, signal: AbortSignal): Promise<Trip> {
  const a = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: 'relay' });
  const b = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: 'relay' });
  let relayed = false;
  let code: number | undefined;
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    one.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate.includes(' typ relay ')) relayed = true;
      if (candidate) void other.addIceCandidate(candidate).catch(() => {});
    };
    // 701 is "could not be reached"; codes below are the server's own answers (RFC 8656, section 19).
    one.onicecandidateerror = (e) => {
      const { errorCode } = e as RTCPeerConnectionIceErrorEvent;
      if (errorCode < 700) code = errorCode;
    };
  }
  try {
    const took = await Promise.race([pingPong(a, b), gaveUp(signal)]);
    if (took !== null) return { took };
    if (relayed) return { failed: 'silent' };
    return code === undefined ? { failed: 'unreachable' } : { failed: 'refused', code };
  } finally {
    a.close();
    b.close();
  }
}

/** The median time of a packet from `a` to `b` and back, in milliseconds. */
async function pingPong(a: RTCPeerConnection, b: RTCPeerConnection): Promise<number> {
  const channel = a.createDataChannel('doctor', { ordered: false, maxRetransmits: 0 });
  b.ondatachannel = ({ channel: echo }) => {
    echo.onmessage = ({ data }) => echo.send(data as string);
  };
  const opened = new Promise<void>((resolve) => (channel.onopen = () => resolve()));
  await a.setLocalDescription();
  await b.setRemoteDescription(a.localDescription!);
  await b.setLocalDescription();
  await a.setRemoteDescription(b.localDescription!);
  await opened;
  const times: number[] = [];
  for (let i = 0; i < PINGS; i++) {
    const start = performance.now();
    const back = new Promise<boolean>((resolve) => {
      channel.onmessage = ({ data }) => data === String(i) && resolve(true);
      setTimeout(() => resolve(false), 1000); // lost: unordered and never sent again
    });
    channel.send(String(i));
    if (await back) times.push(performance.now() - start);
  }
  if (times.length === 0) return new Promise(() => {}); // silence: whoever waits gives up
  times.sort((x, y) => x - y);
  return times[Math.floor(times.length / 2)]!;
}

/** null when time is up or the page has stopped looking. */
function gaveUp(signal: AbortSignal, after = PATIENCE_MS): Promise<null> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(null), after);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve(null);
    });
  });
}

/** How a STUN server sees this device: its own address and port, and the one seen. Empty when nothing comes back. */
export async function seenFrom(uri: string, signal: AbortSignal): Promise<{ local: string; seen: string }[]> {
  const pc = new RTCPeerConnection({ iceServers: [{ urls: uri }] });
  const found: { local: string; seen: string }[] = [];
  pc.createDataChannel('doctor');
  const done = new Promise<void>((resolve) => {
    pc.onicecandidate = ({ candidate }) => {
      if (!candidate) return resolve();
      if (candidate.type === 'srflx') found.push({ local: `${candidate.relatedAddress}:${candidate.relatedPort}`, seen: `${candidate.address}:${candidate.port}` });
    };
  });
  try {
    await pc.setLocalDescription();
    await Promise.race([done, gaveUp(signal, 5000)]);
    return found;
  } finally {
    pc.close();
  }
}
