// SPDX-License-Identifier: Apache-2.0
// What a program may ask a meeting. Every question is answered, an unknown one with an error: the asker waits for it.
import type { MeetingControl } from '../meet/control.ts';
import { muted } from './commands.ts';
import { own } from './params.ts';

/** The answer to a request, or an Error that says why there is none. */
export async function answer(control: MeetingControl, request: unknown): Promise<unknown> {
  const name = own(request, 'name');
  const found = typeof name === 'string' ? (own(own(request, 'type') === 'devices' ? deviceRequests : requests, name) as Request | undefined) : undefined;
  if (!found) throw new Error(`there is no request ${JSON.stringify(name)?.slice(0, 100) ?? 'without a name'} here`);
  return found(control, request);
}

type Request = (control: MeetingControl, request: unknown) => unknown;

const KINDS = { audioinput: 'audioInput', audiooutput: 'audioOutput', videoinput: 'videoInput' } as const;

export const requests: Readonly<Record<string, Request>> = {
  'is-audio-muted': (c) => muted(c, 'audio'),
  'is-video-muted': (c) => muted(c, 'video'),
  'is-audio-available': (c) => available(c, 'audioinput'),
  'is-video-available': (c) => available(c, 'videoinput'),
  'is-audio-disabled': (c) => !c.snapshot.me?.host && !c.snapshot.mayUnmute.audio && muted(c, 'audio'),
  'is-sharing-screen': (c) => Boolean(c.snapshot.me?.sharing),
  'is-moderation-on': (c, r) => !c.snapshot.mayUnmute[own(r, 'mediaType') === 'video' ? 'video' : 'audio'],
  'is-participant-force-muted': (c, r) => {
    const kind = own(r, 'mediaType') === 'video' ? 'video' : 'audio';
    const who = c.snapshot.people.find((p) => p.id === own(r, 'participantId'));
    return Boolean(who && !who.host && who.muted[kind] && !c.snapshot.mayUnmute[kind]);
  },
  'is-participants-pane-open': () => false,
  'is-start-silent': () => false,
  'get-content-sharing-participants': (c) => ({ sharingParticipantIds: sharers(c) }),
  'get-livestream-url': () => ({}),
  'get-custom-avatar-backgrounds': () => ({ avatarBackgrounds: [] }),
  'get-p2p-status': () => false,
  'get-shared-document-url': () => '',
  'list-breakout-rooms': () => ({}),
  'rooms-info': (c) => ({
    rooms: [
      {
        id: c.snapshot.name,
        jid: c.snapshot.name,
        isMainRoom: true,
        participants: c.snapshot.people.map((p) => ({ id: p.id, jid: p.id, displayName: p.name, avatarUrl: p.avatarUrl, role: roleOf(p.host) })),
      },
    ],
  }),
  'deployment-info': () => ({}),
  'session-id': () => '',
  'capture-largevideo-screenshot': () => screenshot(),
  _new_electron_screensharing_supported: () => false,
};

export const deviceRequests: Readonly<Record<string, Request>> = {
  isDeviceListAvailable: () => true,
  isDeviceChangeAvailable: (_, r) => own(r, 'deviceType') !== 'output' || 'setSinkId' in HTMLMediaElement.prototype,
  isMultipleAudioInputSupported: () => false,
  getAvailableDevices: async (c) => byKind((await c.devices()).available),
  getCurrentDevices: async (c) => {
    const { available: all, current } = await c.devices();
    return Object.fromEntries(Object.entries(KINDS).map(([kind, name]) => [name, described(all.find((d) => d.kind === kind && d.deviceId === current[name]))]));
  },
  setDevice: async (c, r) => {
    const device = own(r, 'device');
    const [kind, id, label] = [own(device, 'kind'), own(device, 'id'), own(device, 'label')];
    const { available: all } = await c.devices();
    const found = all.find((d) => d.kind === kind && (label ? d.label === label : d.deviceId === id));
    if (!found) throw new Error('there is no such device');
    await c.useDevice(found.kind, found.deviceId);
    return true;
  },
};

/** Jitsi's word for what a person may do. */
export function roleOf(host: boolean): 'moderator' | 'participant' {
  return host ? 'moderator' : 'participant';
}

export function sharers(control: MeetingControl): string[] {
  return control.snapshot.people.filter((p) => p.sharing).map((p) => p.id);
}

/** Devices as Jitsi lists them. */
export function byKind(all: MediaDeviceInfo[]): Record<string, unknown[]> {
  return Object.fromEntries(Object.entries(KINDS).map(([kind, name]) => [name, all.filter((d) => d.kind === kind).map(described)]));
}

/** A MediaDeviceInfo does not survive being sent; its fields do. */
function described(d: MediaDeviceInfo | undefined) {
  return d && { deviceId: d.deviceId, groupId: d.groupId, kind: d.kind, label: d.label };
}

async function available(control: MeetingControl, kind: MediaDeviceKind): Promise<boolean> {
  return (await control.devices()).available.some((d) => d.kind === kind);
}

/** The largest picture on the screen, as a data: address. */
function screenshot(): { dataURL: string } {
  let largest: HTMLVideoElement | undefined;
  for (const video of document.querySelectorAll('video')) {
    if (video.videoWidth && (!largest || video.clientWidth * video.clientHeight > largest.clientWidth * largest.clientHeight)) largest = video;
  }
  const canvas = document.createElement('canvas');
  const context = largest && canvas.getContext('2d');
  if (!largest || !context) throw new Error('no picture is shown');
  canvas.width = largest.videoWidth;
  canvas.height = largest.videoHeight;
  context.drawImage(largest, 0, 0);
  return { dataURL: canvas.toDataURL('image/png') };
}
