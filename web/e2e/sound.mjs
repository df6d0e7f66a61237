// SPDX-License-Identifier: Apache-2.0
// A voice for a browser's microphone: its own fake one clicks once a second, which is nobody speaking, and silence in between tells nothing.

/** Two seconds of a voice-like hum, a WAV file of 16-bit mono samples. */
export function hum() {
  const rate = 48_000;
  const n = 2 * rate;
  const b = Buffer.alloc(44 + 2 * n);
  b.write('RIFF', 0);
  b.writeUInt32LE(36 + 2 * n, 4);
  b.write('WAVEfmt ', 8);
  b.writeUInt32LE(16, 16);
  b.writeUInt16LE(1, 20);
  b.writeUInt16LE(1, 22);
  b.writeUInt32LE(rate, 24);
  b.writeUInt32LE(2 * rate, 28);
  b.writeUInt16LE(2, 32);
  b.writeUInt16LE(16, 34);
  b.write('data', 36);
  b.writeUInt32LE(2 * n, 40);
  for (let i = 0; i < n; i++) b.writeInt16LE(Math.round(9800 * Math.sin((2 * Math.PI * 300 * i) / rate) * (0.7 + 0.3 * Math.sin((2 * Math.PI * 3 * i) / rate))), 44 + 2 * i);
  return b;
}
