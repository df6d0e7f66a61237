// SPDX-License-Identifier: Apache-2.0
// What a program may tell a meeting to do, by the names on the wire. A command has no answer: what it cannot do is logged.
import type { Kind, MeetingControl, Options } from '../meet/control.ts';
import { configured, picture } from './options.ts';
import { own, words } from './params.ts';

/** What a command works with. */
export interface Desk {
  control: MeetingControl;
  /** Tells the page around us. */
  emit(name: string, data?: Record<string, unknown>): void;
  /** Changes options of the page, and keeps what only we need of them. */
  configure(change: Partial<Options>, config: unknown): void;
}

type Command = (desk: Desk, args: readonly unknown[]) => void | Promise<unknown>;

/** A command's argument makes no sense; the command does nothing. */
export class BadArgument extends Error {}

export const commands: Readonly<Record<string, Command>> = {
  'video-hangup': ({ control }) => control.hangUp(),
  'end-conference': ({ control }) => control.end(),
  'display-name': ({ control }, [name]) => control.setName(some(words(name, 100), 'name')),
  'avatar-url': ({ control }, [url]) => control.setAvatar(url === '' ? '' : some(picture(url), 'https: address of a picture')),
  email: ({ emit, control, configure }, [address]) => {
    const email = some(words(address, 320), 'address');
    configure({ email }, undefined);
    emit('email-change', { id: control.snapshot.me?.id ?? 'local', email });
  },
  subject: ({ control }, [subject]) => control.setSubject(words(subject, 255) ?? ''),
  password: ({ control }, [password]) => {
    if (typeof password !== 'string' || password.length > 255) throw new BadArgument('a password is a text of at most 255 characters');
    return control.givePassword(password);
  },

  'toggle-audio': ({ control }) => control.setMuted('audio', !muted(control, 'audio')),
  'toggle-video': ({ control }) => control.setMuted('video', !muted(control, 'video')),
  'toggle-camera': async ({ control }) => {
    const { available, current } = await control.devices();
    const cameras = available.filter((d) => d.kind === 'videoinput');
    const at = cameras.findIndex((d) => d.deviceId === current.videoInput);
    const next = cameras[(at + 1) % cameras.length];
    if (next && cameras.length > 1) await control.useDevice('videoinput', next.deviceId);
  },
  'toggle-share-screen': ({ control }, [options]) => {
    const enable = own(options, 'enable');
    return control.share(typeof enable === 'boolean' ? enable : !control.snapshot.me?.sharing);
  },
  'toggle-share-audio': ({ control }) => control.share(!control.snapshot.me?.sharing, true),
  'toggle-raise-hand': ({ control }) => control.raiseHand(!control.snapshot.me?.hand),
  'set-blurred-background': ({ control }, [kind]) => control.setBlur(Boolean(kind) && kind !== 'none'),
  'set-video-quality': ({ control, emit }, [height]) => {
    control.setQuality(between(height, 0, 4320, 'height'));
    emit('video-quality-changed', { videoQuality: height });
  },
  'set-low-bandwidth-mode': ({ configure, emit }, [on]) => {
    configure({ audioOnly: on === true }, undefined);
    emit('low-bandwidth-mode-changed', { enabled: on === true });
  },
  'set-participant-volume': ({ control }, [id, volume]) => control.setVolume(person(control, id).id, between(volume, 0, 1, 'volume')),

  'toggle-tile-view': ({ control }) => control.setView(control.snapshot.view === 'tile' ? 'speaker' : 'tile'),
  'set-tile-view': ({ control }, [on]) => control.setView(on === true || on === 'true' ? 'tile' : 'speaker'),
  'pin-participant': ({ control }, [id]) => control.pin(id ? person(control, id).id : undefined),
  'set-large-video-participant': ({ control }, [id]) => {
    if (id) control.setView('speaker');
    control.pin(id ? person(control, id).id : undefined);
  },
  'toggle-film-strip': ({ emit }) => {
    const visible = document.documentElement.dataset.filmstrip === 'hidden';
    if (visible) delete document.documentElement.dataset.filmstrip;
    else document.documentElement.dataset.filmstrip = 'hidden';
    emit('filmstrip-display-changed', { visible });
  },

  'toggle-chat': ({ control }) => control.openChat(!control.snapshot.chatOpen),
  'initiate-private-chat': ({ control }, [id]) => {
    person(control, id);
    control.openChat(true);
  },
  'send-chat-message': ({ control }, [message, to]) => {
    if (typeof message !== 'string' || message.trim() === '' || message.length > 16384) throw new BadArgument('a message is a text of 1 to 16384 characters');
    return control.say(message, to ? person(control, to).id : undefined);
  },

  'toggle-lobby': ({ control }, [on]) => control.setLobby(typeof on === 'boolean' ? on : !control.snapshot.lobby),
  'answer-knocking-participant': ({ control }, [id, admit]) => {
    const knock = control.snapshot.knocks.find((k) => k.userId === id);
    if (!knock) throw new BadArgument('nobody knocks under that id');
    return control.host.answer(knock.userId, admit === true);
  },
  'kick-participant': ({ control }, [id]) => control.host.kick(person(control, id).id),
  'grant-moderator': ({ control }, [id]) => control.host.promote(person(control, id).id),
  'mute-everyone': ({ control }, [type]) => control.host.muteAll(medium(type)),
  'mute-remote-participant': ({ control }, [id, type]) => {
    const who = person(control, id);
    const kind = medium(type);
    if (!who.local) return control.host.mute(who.id, kind);
    return kind === 'screen' ? control.share(false) : control.setMuted(kind, true);
  },
  'ask-to-unmute': ({ control }, [id]) => control.host.askUnmute(person(control, id).id, 'audio'),
  'approve-video': ({ control }, [id]) => control.host.askUnmute(person(control, id).id, 'video'),
  'reject-participant': ({ control }, [id, type]) => control.host.mute(person(control, id).id, medium(type)),
  'toggle-moderation': ({ control }, [on, type]) => control.host.mayUnmute(medium(type) === 'video' ? 'video' : 'audio', on !== true),

  'overwrite-config': ({ configure }, [config]) => {
    if (typeof config !== 'object' || config === null) throw new BadArgument('a config is an object');
    configure(
      configured((name) => name.split('.').reduce<unknown>((value, step) => own(value, step), config)),
      config,
    );
  },

  // There is no recorder here; whoever waits for it must hear that.
  'start-recording': ({ emit }, [options]) => noRecorder(emit, own(options, 'mode')),
  'stop-recording': ({ emit }, [mode]) => noRecorder(emit, mode),
};

/** Commands that this server has nothing for, and what is missing. */
export const unsupported: Readonly<Record<string, string>> = {
  'add-breakout-room': 'breakout rooms',
  'auto-assign-to-breakout-rooms': 'breakout rooms',
  'close-breakout-room': 'breakout rooms',
  'join-breakout-room': 'breakout rooms',
  'remove-breakout-room': 'breakout rooms',
  'send-participant-to-room': 'breakout rooms',
  'cancel-private-chat': 'a recipient that stays chosen',
  'grant-recording-consent': 'recording',
  'hide-notification': 'notifications of embedders',
  'show-notification': 'notifications of embedders',
  'show-pip': 'picture-in-picture without a click in the page',
  'hide-pip': 'picture-in-picture without a click in the page',
  'local-subject': 'a subject for one page only',
  'overwrite-names': 'names for one page only',
  'resize-film-strip': 'sizes set from outside; the page fills its frame',
  'resize-large-video': 'sizes set from outside; the page fills its frame',
  'send-camera-facing-mode-message': 'messages between pages',
  'send-endpoint-text-message': 'messages between pages',
  'send-tones': 'telephone dial-in',
  'set-assumed-bandwidth-bps': 'an assumed bandwidth; the SFU measures it',
  'set-follow-me': 'follow me',
  'set-media-encryption-key': 'keys of embedders; the key stands in the meeting link',
  'toggle-e2ee': 'switching encryption in a running meeting',
  'set-meeting-timer': 'a timer',
  'set-noise-suppression-enabled': 'noise suppression besides the browser’s own',
  'toggle-noise-suppression': 'noise suppression besides the browser’s own',
  'set-participant-properties': 'properties of participants',
  'set-second-screen': 'a second screen',
  'set-subtitles': 'transcription',
  'toggle-subtitles': 'transcription',
  'set-virtual-background': 'background pictures; blur is there',
  'toggle-virtual-background': 'a dialog for backgrounds',
  'start-share-video': 'shared videos',
  'stop-share-video': 'shared videos',
  'submit-feedback': 'feedback',
  'toggle-camera-mirror': 'a choice of mirroring',
  'toggle-participants-pane': 'a list that is opened from outside',
  'toggle-whiteboard': 'a whiteboard',
};

function noRecorder(emit: Desk['emit'], mode: unknown): void {
  emit('recording-status-changed', { on: false, mode: words(mode, 20) ?? 'file', error: 'unavailable', transcription: false });
}

function some<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new BadArgument(`a ${what} is needed`);
  return value;
}

function between(value: unknown, low: number, high: number, what: string): number {
  if (typeof value !== 'number' || !(value >= low && value <= high)) throw new BadArgument(`the ${what} is a number from ${low} to ${high}`);
  return value;
}

function person(control: MeetingControl, id: unknown) {
  const who = control.snapshot.people.find((p) => p.id === id);
  if (!who) throw new BadArgument('nobody here has that id');
  return who;
}

/** Jitsi's words for what can be muted; sound when nothing is said. */
function medium(type: unknown): Kind {
  switch (type) {
    case undefined:
    case null:
    case '':
    case 'audio':
      return 'audio';
    case 'video':
      return 'video';
    case 'desktop':
    case 'screen':
      return 'screen';
    default:
      throw new BadArgument('a media type is audio, video or desktop');
  }
}

/** How we are muted, or will be once we are in. */
export function muted(control: MeetingControl, kind: 'audio' | 'video'): boolean {
  return control.snapshot.me?.muted[kind] ?? control.snapshot.wish?.[kind] ?? false;
}
