// SPDX-License-Identifier: Apache-2.0
// Camera and microphone before there is a meeting: one looks at oneself, chooses devices, and takes the running tracks along.
import type { Options } from './control.ts';

export type Trouble = 'denied' | 'none' | 'busy';

/** Why a device could not be had. */
export function troubleOf(error: unknown): Trouble {
  const name = error instanceof Error || error instanceof DOMException ? error.name : '';
  if (name === 'NotAllowedError' || name === 'SecurityError') return 'denied';
  if (name === 'NotFoundError' || name === 'OverconstrainedError' || name === 'TypeError') return 'none';
  return 'busy';
}

export interface PreviewState {
  camera?: MediaStreamTrack;
  microphone?: MediaStreamTrack;
  trouble: { audio?: Trouble; video?: Trouble };
  starting: boolean;
}

export type Devices = NonNullable<Options['devices']>;

export const AUDIO_WISH: MediaTrackConstraints = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

/** What is asked of a camera; small pictures spare slow machines and lines. */
export function videoWish(small: boolean): MediaTrackConstraints {
  return small ? { width: { ideal: 320 }, height: { ideal: 180 }, frameRate: { ideal: 12, max: 15 } } : { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30, max: 30 } };
}

const chosen = (id: string | undefined): MediaTrackConstraints => (id ? { deviceId: { ideal: id } } : {});

export class Preview {
  state: PreviewState = { trouble: {}, starting: false };
  /** Called after each change of `state`. */
  onChange: () => void = () => {};
  private turn = 0;

  constructor(private readonly small: boolean) {}

  /** Opens what is wanted and not yet open, lets go of what is not wanted. The browser asks the person once for both. */
  async open(wanted: { audio: boolean; video: boolean }, devices: Devices): Promise<void> {
    const turn = ++this.turn;
    if (!wanted.video) this.drop('camera');
    if (!wanted.audio) this.drop('microphone');
    const audio = wanted.audio && !this.state.microphone;
    const video = wanted.video && !this.state.camera;
    if (!audio && !video) return this.set({ starting: false });
    if (!navigator.mediaDevices) return this.set({ trouble: { audio: 'none', video: 'none' }, starting: false });
    this.set({ starting: true });
    const ask = (a: boolean, v: boolean) =>
      navigator.mediaDevices.getUserMedia({
        audio: a && { ...AUDIO_WISH, ...chosen(devices.audioInput) },
        video: v && { ...videoWish(this.small), ...chosen(devices.videoInput) },
      });
    const trouble = { ...this.state.trouble };
    const take = async (a: boolean, v: boolean): Promise<boolean> => {
      try {
        const stream = await ask(a, v);
        if (turn !== this.turn) {
          for (const track of stream.getTracks()) track.stop();
          return true;
        }
        const [mic, camera] = [stream.getAudioTracks()[0], stream.getVideoTracks()[0]];
        if (mic) {
          delete trouble.audio;
          this.set({ microphone: mic });
        }
        if (camera) {
          delete trouble.video;
          this.set({ camera });
        }
        return true;
      } catch (error) {
        if (a) trouble.audio = troubleOf(error);
        if (v) trouble.video = troubleOf(error);
        return false;
      }
    };
    if (!(await take(audio, video)) && audio && video) {
      // One of the two may still work.
      await take(true, false);
      await take(false, true);
    }
    if (turn === this.turn) this.set({ trouble, starting: false });
  }

  /** Takes another device instead of the open one. */
  async change(kind: 'audio' | 'video', devices: Devices, wanted: { audio: boolean; video: boolean }): Promise<void> {
    this.drop(kind === 'audio' ? 'microphone' : 'camera');
    await this.open(wanted, devices);
  }

  /** Hands the running tracks to the meeting; the preview has none afterwards. */
  take(): { camera?: MediaStreamTrack; microphone?: MediaStreamTrack } {
    this.turn++;
    const { camera, microphone } = this.state;
    this.state = { trouble: this.state.trouble, starting: false };
    return { camera, microphone };
  }

  close(): void {
    this.turn++;
    this.drop('camera');
    this.drop('microphone');
  }

  private drop(which: 'camera' | 'microphone'): void {
    const track = this.state[which];
    if (!track) return;
    track.stop();
    this.set({ [which]: undefined });
  }

  private set(change: Partial<PreviewState>): void {
    this.state = { ...this.state, ...change };
    this.onChange();
  }
}

/** Tells `hear` the loudness of a microphone, 0 to 1, about fifteen times a second until the returned function is called. */
export function listen(track: MediaStreamTrack, hear: (level: number) => void): () => void {
  const context = new AudioContext();
  const source = context.createMediaStreamSource(new MediaStream([track]));
  const analyser = context.createAnalyser();
  analyser.fftSize = 512;
  source.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    let sum = 0;
    for (const s of samples) sum += s * s;
    // Speech lies between about -50 and -10 dB.
    const db = 10 * Math.log10(sum / samples.length + 1e-9);
    hear(Math.min(1, Math.max(0, (db + 55) / 45)));
  }, 66);
  return () => {
    clearInterval(timer);
    source.disconnect();
    void context.close();
  };
}
