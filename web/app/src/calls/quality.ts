// SPDX-License-Identifier: Apache-2.0
// Reads RTCPeerConnection.getStats() and judges how good a call is. Field names: W3C "Identifiers for WebRTC's Statistics API".

export type Quality = 'unknown' | 'good' | 'fair' | 'poor';

interface Packets {
  received: number;
  lost: number;
}

/** Counters of one getStats() call; differences of two give rates. */
export interface Sample {
  at: number;
  rttMs?: number;
  jitterMs?: number;
  /** Share of our packets that the other side missed lately, 0 to 1, as it reported. */
  remoteLoss?: number;
  /** Packets by kind of media: lost sound is heard, while lost pictures are mostly sent again. */
  audio: Packets;
  video: Packets;
  bytesIn: number;
  bytesOut: number;
  frameHeight?: number;
  frames?: number;
  route?: 'direct' | 'relayed';
  protocol?: string;
  localType?: string;
  remoteType?: string;
}

export interface Measurement {
  rttMs?: number;
  /** Worse of the two directions, 0 to 1. */
  loss?: number;
  jitterMs?: number;
  kbpsIn?: number;
  kbpsOut?: number;
  fps?: number;
  frameHeight?: number;
  route?: 'direct' | 'relayed';
  /** How our packets travel: `udp`, `tcp`, or `tls` to a relay. */
  protocol?: string;
  localType?: string;
  remoteType?: string;
}

interface Stat {
  id: string;
  type: string;
  timestamp: number;
  [key: string]: unknown;
}

type Report = { forEach(visit: (stat: Stat) => void): void };

const num = (value: unknown): number | undefined => (typeof value === 'number' && Number.isFinite(value) ? value : undefined);
const str = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);

/** The pair of candidates that carries the call: the transport names it; Firefox marks it `selected`. */
export function selectedPair(report: Report): { pair?: Stat; local?: Stat; remote?: Stat } {
  const byId = new Map<string, Stat>();
  report.forEach((stat) => byId.set(stat.id, stat));
  let pair: Stat | undefined;
  for (const stat of byId.values()) {
    if (stat.type === 'transport' && str(stat.selectedCandidatePairId)) pair = byId.get(stat.selectedCandidatePairId as string);
  }
  pair ??= [...byId.values()].find((s) => s.type === 'candidate-pair' && (s.selected === true || (s.nominated === true && s.state === 'succeeded')));
  return {
    pair,
    local: pair && byId.get(str(pair.localCandidateId) ?? ''),
    remote: pair && byId.get(str(pair.remoteCandidateId) ?? ''),
  };
}

export function readSample(report: Report): Sample {
  const sample: Sample = { at: 0, audio: { received: 0, lost: 0 }, video: { received: 0, lost: 0 }, bytesIn: 0, bytesOut: 0 };
  report.forEach((stat) => {
    sample.at = Math.max(sample.at, stat.timestamp);
    if (stat.type === 'inbound-rtp') {
      const packets = stat.kind === 'video' ? sample.video : sample.audio;
      packets.received += num(stat.packetsReceived) ?? 0;
      packets.lost += num(stat.packetsLost) ?? 0;
      sample.bytesIn += num(stat.bytesReceived) ?? 0;
      if (stat.kind === 'audio') sample.jitterMs = (num(stat.jitter) ?? 0) * 1000;
      if (stat.kind === 'video') {
        sample.frameHeight = Math.max(sample.frameHeight ?? 0, num(stat.frameHeight) ?? 0) || undefined;
        sample.frames = (sample.frames ?? 0) + (num(stat.framesDecoded) ?? 0);
      }
    } else if (stat.type === 'outbound-rtp') {
      sample.bytesOut += num(stat.bytesSent) ?? 0;
    } else if (stat.type === 'remote-inbound-rtp') {
      const loss = num(stat.fractionLost);
      if (loss !== undefined) sample.remoteLoss = Math.max(sample.remoteLoss ?? 0, loss);
    }
  });
  const { pair, local, remote } = selectedPair(report);
  const rtt = pair && num(pair.currentRoundTripTime);
  if (rtt !== undefined) sample.rttMs = rtt * 1000;
  sample.localType = local && str(local.candidateType);
  sample.remoteType = remote && str(remote.candidateType);
  if (local && remote) sample.route = sample.localType === 'relay' || sample.remoteType === 'relay' ? 'relayed' : 'direct';
  // For a relayed candidate `protocol` is what the relay uses towards the peer; `relayProtocol` is our own leg.
  sample.protocol = local && (str(local.relayProtocol) ?? str(local.protocol));
  return sample;
}

/** The last few samples: a word that changes with every packet would tell nobody anything. */
export const WINDOW = 5;

/** What happened between two samples. Counters that ran backwards (a new receiver) give no rate. */
export function compare(before: Sample | null, after: Sample): Measurement {
  const result: Measurement = {
    rttMs: after.rttMs,
    jitterMs: after.jitterMs,
    frameHeight: after.frameHeight,
    route: after.route,
    protocol: after.protocol,
    localType: after.localType,
    remoteType: after.remoteType,
    loss: after.remoteLoss,
  };
  if (!before || after.at <= before.at) return result;
  const seconds = (after.at - before.at) / 1000;
  for (const kind of ['audio', 'video'] as const) {
    const received = after[kind].received - before[kind].received;
    const lost = Math.max(0, after[kind].lost - before[kind].lost);
    if (received >= 0 && received + lost > 0) result.loss = Math.max(result.loss ?? 0, lost / (received + lost));
  }
  if (after.bytesIn >= before.bytesIn) result.kbpsIn = ((after.bytesIn - before.bytesIn) * 8) / 1000 / seconds;
  if (after.bytesOut >= before.bytesOut) result.kbpsOut = ((after.bytesOut - before.bytesOut) * 8) / 1000 / seconds;
  if (after.frames !== undefined && before.frames !== undefined && after.frames >= before.frames) {
    result.fps = (after.frames - before.frames) / seconds;
  }
  return result;
}

/**
 * One word for a measurement. The limits follow ITU-T G.114 for delay (a conversation suffers above 400 ms there
 * and back) and what Opus with error concealment hides: about 2 % loss unheard, about 8 % annoying.
 */
export function judge(m: Measurement): Quality {
  if (m.rttMs === undefined && m.loss === undefined) return 'unknown';
  const rtt = m.rttMs ?? 0;
  const loss = m.loss ?? 0;
  const jitter = m.jitterMs ?? 0;
  if (rtt > 500 || loss > 0.08 || jitter > 100) return 'poor';
  if (rtt > 250 || loss > 0.02 || jitter > 40) return 'fair';
  return 'good';
}
