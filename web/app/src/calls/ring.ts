// SPDX-License-Identifier: Apache-2.0
// Call sounds made with WebAudio: no sound files, nothing to download.

export type RingKind = 'incoming' | 'outgoing';

/** Notes of one round: frequency in Hz, start and length in seconds. */
interface Note {
  hz: number;
  at: number;
  for: number;
}

// Two rising thirds, like a small bell.
const INCOMING: Note[] = [
  { hz: 659.3, at: 0, for: 0.32 },
  { hz: 830.6, at: 0.18, for: 0.32 },
  { hz: 987.8, at: 0.36, for: 0.5 },
  { hz: 659.3, at: 1.0, for: 0.32 },
  { hz: 830.6, at: 1.18, for: 0.32 },
  { hz: 987.8, at: 1.36, for: 0.5 },
];
// The European ringing tone of ITU-T E.180: 425 Hz, one second in five.
const OUTGOING: Note[] = [{ hz: 425, at: 0, for: 1 }];

const ROUND_SECONDS: Record<RingKind, number> = { incoming: 3, outgoing: 5 };

/** Rings until stopped. A browser that forbids sound before the first click rings silently. */
export class Ringer {
  private context: AudioContext | null = null;
  private timer: ReturnType<typeof setInterval> | null = null;
  private kind: RingKind | null = null;

  start(kind: RingKind): void {
    if (this.kind === kind) return;
    this.stop();
    this.kind = kind;
    if (!('AudioContext' in window)) return;
    this.context = new AudioContext();
    void this.context.resume().catch(() => {});
    this.playRound();
    this.timer = setInterval(() => this.playRound(), ROUND_SECONDS[kind] * 1000);
  }

  stop(): void {
    this.kind = null;
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
    void this.context?.close().catch(() => {});
    this.context = null;
  }

  private playRound(): void {
    const context = this.context;
    if (!context || context.state !== 'running') {
      // Sound becomes allowed with the first gesture; the next round tries again.
      void context?.resume().catch(() => {});
      if (!context) return;
    }
    const incoming = this.kind === 'incoming';
    const now = context.currentTime + 0.02;
    for (const note of incoming ? INCOMING : OUTGOING) {
      const tone = context.createOscillator();
      const gain = context.createGain();
      tone.type = 'sine';
      tone.frequency.value = note.hz;
      const loud = incoming ? 0.16 : 0.05;
      gain.gain.setValueAtTime(0, now + note.at);
      gain.gain.linearRampToValueAtTime(loud, now + note.at + 0.02);
      if (incoming) gain.gain.exponentialRampToValueAtTime(0.001, now + note.at + note.for);
      else gain.gain.setValueAtTime(loud, now + note.at + note.for - 0.03);
      gain.gain.linearRampToValueAtTime(0, now + note.at + note.for + 0.02);
      tone.connect(gain).connect(context.destination);
      tone.start(now + note.at);
      tone.stop(now + note.at + note.for + 0.05);
    }
  }
}
