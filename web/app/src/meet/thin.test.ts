// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { sendThinnable } from './thin.ts';

/** A sender as browsers have them: parameters are copies, and are taken whole or not at all. */
class Sender {
  mode?: string;
  constructor(
    private parameters: { encodings: object[]; codecs?: { mimeType: string }[] },
    private readonly refuses?: (parameters: object) => boolean,
    private readonly ignores = false,
  ) {}
  getParameters() {
    return structuredClone(this.parameters) as unknown as RTCRtpSendParameters;
  }
  setParameters(parameters: RTCRtpSendParameters): Promise<void> {
    if (this.refuses?.(parameters)) return Promise.reject(new DOMException('unsupported scalabilityMode', 'OperationError'));
    if (!this.ignores) this.parameters = structuredClone(parameters) as unknown as typeof this.parameters;
    return Promise.resolve();
  }
  get encodings() {
    return this.parameters.encodings;
  }
}

const sizes = () => [
  { rid: 'q', active: true, maxBitrate: 150_000 },
  { rid: 'h', active: true, maxBitrate: 450_000 },
  { rid: 'f', active: false, maxBitrate: 1_700_000 },
];

describe('cameras are sent in temporal layers', () => {
  for (const mimeType of ['video/VP8', 'video/H264', undefined]) {
    it(`in each size, with ${mimeType ?? 'a codec that the browser does not tell'}`, async () => {
      const sender = new Sender({ encodings: sizes(), codecs: mimeType ? [{ mimeType }] : undefined });
      expect(await sendThinnable(sender)).toBe(true);
      expect(sender.encodings).toEqual(sizes().map((e) => ({ ...e, scalabilityMode: 'L1T3' })));
    });
  }

  it('but not with codecs that have their sizes in one stream', async () => {
    for (const parameters of [
      { encodings: [{ active: true, scalabilityMode: 'L3T3_KEY' }] },
      { encodings: [{ active: true }], codecs: [{ mimeType: 'video/VP9' }] },
      { encodings: [{ active: true }], codecs: [{ mimeType: 'video/AV1' }] },
    ]) {
      const sender = new Sender(structuredClone(parameters));
      expect(await sendThinnable(sender)).toBe(false);
      expect(sender.encodings).toEqual(parameters.encodings);
    }
  });

  it('and as before where the browser does not want to', async () => {
    const refuses = new Sender({ encodings: sizes() }, () => true);
    expect(await sendThinnable(refuses)).toBe(false);
    expect(refuses.encodings).toEqual(sizes());
    expect(await sendThinnable(new Sender({ encodings: sizes() }, undefined, true))).toBe(false);
    expect(await sendThinnable(new Sender({ encodings: [] }))).toBe(false);
    expect(await sendThinnable(undefined)).toBe(false);
  });
});
