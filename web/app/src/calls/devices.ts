// SPDX-License-Identifier: Apache-2.0

/** Devices the person chose; empty means the browser's default. `hd` asks the camera for 720p instead of 360p. */
export interface DeviceChoice {
  mic: string;
  camera: string;
  speaker: string;
  hd: boolean;
}

const KEY = 'trunkboard.devices';

export function loadDevices(): DeviceChoice {
  const choice: DeviceChoice = { mic: '', camera: '', speaker: '', hd: true };
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? '{}') as Partial<DeviceChoice>;
    for (const key of ['mic', 'camera', 'speaker'] as const) if (typeof stored[key] === 'string') choice[key] = stored[key];
    if (typeof stored.hd === 'boolean') choice.hd = stored.hd;
  } catch {
    // Not ours or damaged: the defaults do.
  }
  return choice;
}

export function saveDevices(choice: DeviceChoice): void {
  localStorage.setItem(KEY, JSON.stringify(choice));
}

export interface DeviceLists {
  mics: MediaDeviceInfo[];
  cameras: MediaDeviceInfo[];
  speakers: MediaDeviceInfo[];
}

export async function listDevices(): Promise<DeviceLists> {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const of = (kind: MediaDeviceKind) => all.filter((d) => d.kind === kind && d.deviceId !== '' && d.deviceId !== 'communications');
  return { mics: of('audioinput'), cameras: of('videoinput'), speakers: of('audiooutput') };
}

/** Sends an element's sound to the chosen speaker, where the browser can. */
export async function playOn(element: HTMLMediaElement, speaker: string): Promise<void> {
  if (!('setSinkId' in element)) return;
  try {
    await element.setSinkId(speaker);
  } catch {
    // The speaker is gone: the default one plays.
    await element.setSinkId('').catch(() => {});
  }
}

/** Why no camera or microphone could be had, for a person. `kind` is what was asked for. */
export function explainMediaError(error: unknown, kind: 'audio' | 'video'): string {
  const thing = kind === 'video' ? 'camera and microphone' : 'microphone';
  const name = error instanceof Error || error instanceof DOMException ? error.name : '';
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return `Your browser does not let this page use the ${thing}. Allow it with the icon next to the address, then call again.`;
    case 'NotFoundError':
    case 'DevicesNotFoundError':
    case 'TypeError':
      return `No ${kind === 'video' ? 'camera or microphone' : 'microphone'} was found. Connect one and call again.`;
    case 'NotReadableError':
    case 'TrackStartError':
    case 'AbortError':
      return `The ${thing} is in use by another program or could not start.`;
    case 'OverconstrainedError':
      return `The chosen ${thing} is not there any more. Choose another one in the device settings.`;
    default:
      return `The ${thing} could not be used.`;
  }
}

/** A reason why calls cannot work in this page at all, or null. Browsers give devices only to secure origins. */
export function callsImpossible(): string | null {
  if (!window.isSecureContext) {
    return `Calls need a secure page. Open this address with https:// instead of ${location.protocol}//, or use localhost on the machine that runs the server.`;
  }
  if (!navigator.mediaDevices || !window.RTCPeerConnection) return 'This browser cannot make calls.';
  return null;
}

export interface Preflight {
  /** False when a video call goes on without a camera. */
  video: boolean;
  /** Said to the person when something is missing but the call can go on. */
  notice: string;
  /** Lets go of the devices; call it once the call has its own. */
  release(): void;
}

/**
 * Asks for microphone and camera before a call is placed or answered, so that a refusal is explained and no
 * invite is sent in vain. A video call without a usable camera goes on with sound only. Throws the browser's error.
 */
export async function preflight(video: boolean): Promise<Preflight> {
  const { mic, camera } = loadDevices();
  const audioWish: MediaTrackConstraints = mic ? { deviceId: { ideal: mic } } : {};
  const cameraWish: MediaTrackConstraints = camera ? { deviceId: { ideal: camera } } : {};
  const ask = (withVideo: boolean) => navigator.mediaDevices.getUserMedia({ audio: audioWish, video: withVideo && cameraWish });
  const done = (stream: MediaStream, withVideo: boolean, notice: string): Preflight => ({
    video: withVideo,
    notice,
    release: () => stream.getTracks().forEach((track) => track.stop()),
  });
  if (!video) return done(await ask(false), false, '');
  try {
    return done(await ask(true), true, '');
  } catch (error) {
    const stream = await ask(false).catch(() => {
      throw error;
    });
    const denied = error instanceof DOMException && error.name === 'NotAllowedError';
    return done(stream, false, denied ? 'Camera blocked by the browser: they hear you but do not see you.' : 'No usable camera: they hear you but do not see you.');
  }
}
