// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { compare, judge, readSample, selectedPair } from './quality.ts';

interface Overrides {
  at?: number;
  received?: number;
  lost?: number;
  bytes?: number;
  rtt?: number;
  remoteLoss?: number;
}

function report({ at = 1000, received = 0, lost = 0, bytes = 0, rtt = 0.02, remoteLoss = 0 }: Overrides = {}) {
  const stats = [
    { id: 'T', type: 'transport', timestamp: at, selectedCandidatePairId: 'P1' },
    { id: 'P0', type: 'candidate-pair', timestamp: at, state: 'succeeded', nominated: true, localCandidateId: 'L0', remoteCandidateId: 'R', currentRoundTripTime: 9 },
    { id: 'P1', type: 'candidate-pair', timestamp: at, state: 'succeeded', nominated: true, localCandidateId: 'L1', remoteCandidateId: 'R', currentRoundTripTime: rtt },
    { id: 'L0', type: 'local-candidate', timestamp: at, candidateType: 'host', protocol: 'udp' },
    { id: 'L1', type: 'local-candidate', timestamp: at, candidateType: 'relay', protocol: 'udp', relayProtocol: 'tls' },
    { id: 'R', type: 'remote-candidate', timestamp: at, candidateType: 'host', protocol: 'udp' },
    { id: 'IA', type: 'inbound-rtp', kind: 'audio', timestamp: at, packetsReceived: received, packetsLost: lost, bytesReceived: bytes, jitter: 0.004 },
    { id: 'IV', type: 'inbound-rtp', kind: 'video', timestamp: at, packetsReceived: 0, packetsLost: 0, bytesReceived: 0, frameHeight: 720, framesDecoded: at / 100 },
    { id: 'RI', type: 'remote-inbound-rtp', kind: 'audio', timestamp: at, fractionLost: remoteLoss },
  ];
  return { forEach: (visit: (s: never) => void) => stats.forEach((s) => visit(s as never)) };
}

describe('readSample', () => {
  it('reads the pair that the transport names, not the first nominated one', () => {
    expect(selectedPair(report()).pair?.id).toBe('P1');
    expect(readSample(report())).toMatchObject({ rttMs: 20, route: 'relayed', protocol: 'tls', localType: 'relay', remoteType: 'host', frameHeight: 720 });
  });

  it('knows nothing about a connection without a pair', () => {
    expect(readSample({ forEach: () => {} })).toMatchObject({ audio: { received: 0, lost: 0 }, bytesIn: 0 });
    expect(judge(compare(null, readSample({ forEach: () => {} })))).toBe('unknown');
  });
});

describe('compare', () => {
  it('turns counters into rates and takes the worse direction for loss', () => {
    const a = readSample(report({ at: 1000, received: 100, lost: 0, bytes: 10_000 }));
    const b = readSample(report({ at: 3000, received: 190, lost: 10, bytes: 35_000, remoteLoss: 0.02 }));
    const m = compare(a, b);
    expect(m.loss).toBeCloseTo(0.1);
    expect(m.kbpsIn).toBe(100);
    expect(m.fps).toBe(10);
  });

  it('hears lost sound through many good pictures', () => {
    const packets = (audio: number, lost: number, video: number) => ({ ...readSample(report()), at: audio, audio: { received: audio, lost }, video: { received: video, lost: 0 } });
    expect(compare(packets(100, 0, 0), packets(150, 50, 5000)).loss).toBeCloseTo(0.5);
  });

  it('gives no rate when counters ran backwards or time stood still', () => {
    const a = readSample(report({ at: 1000, received: 100, bytes: 10_000 }));
    expect(compare(a, readSample(report({ at: 2000, received: 5, bytes: 100 }))).kbpsIn).toBeUndefined();
    expect(compare(a, a).kbpsIn).toBeUndefined();
  });
});

it.each([
  [{ rttMs: 20, loss: 0 }, 'good'],
  [{ rttMs: 250, loss: 0.02, jitterMs: 40 }, 'good'],
  [{ rttMs: 260 }, 'fair'],
  [{ rttMs: 20, loss: 0.05 }, 'fair'],
  [{ rttMs: 20, jitterMs: 60 }, 'fair'],
  [{ rttMs: 600 }, 'poor'],
  [{ rttMs: 20, loss: 0.2 }, 'poor'],
  [{ loss: 0 }, 'good'],
  [{}, 'unknown'],
] as const)('judges %j as %s', (measurement, quality) => {
  expect(judge(measurement)).toBe(quality);
});
