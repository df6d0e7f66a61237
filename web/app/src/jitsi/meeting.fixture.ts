// SPDX-License-Identifier: Apache-2.0
// A meeting without media and server, for tests of those who drive one from outside.
import type { Kind, MeetingControl, MeetingEvent, Options, Person, Snapshot } from '../meet/control.ts';

export function person(id: string, more: Partial<Person> = {}): Person {
  return { id, name: id, local: false, host: false, muted: { audio: false, video: false }, sharing: false, speaking: false, quality: 'good', ...more };
}

/** Keeps what it is told and what was done: `calls` holds `['kick', 'ben']`. */
export class Meeting implements MeetingControl {
  snapshot: Snapshot = {
    phase: 'prejoin',
    name: 'daily',
    subject: '',
    people: [],
    view: 'tile',
    chatOpen: false,
    unread: 0,
    lobby: false,
    password: false,
    knocks: [],
    mayUnmute: { audio: true, video: true },
  };
  options: Partial<Options> = {};
  calls: unknown[][] = [];
  /** What the next refused method says. */
  refusal = '';
  private listeners = new Set<(e: MeetingEvent) => void>();

  subscribe(f: (e: MeetingEvent) => void): () => void {
    this.listeners.add(f);
    return () => this.listeners.delete(f);
  }

  get subscribers(): number {
    return this.listeners.size;
  }

  /** Changes what there is and tells it. */
  happen(e: MeetingEvent, change: Partial<Snapshot> = {}): void {
    this.snapshot = { ...this.snapshot, ...change };
    for (const f of this.listeners) f(e);
  }

  private did(...call: unknown[]): Promise<void> {
    this.calls.push(call);
    return this.refusal ? Promise.reject(new Error(this.refusal)) : Promise.resolve();
  }

  async join(): Promise<void> {
    const me = person('me', { name: this.options.displayName ?? 'Ann', local: true, host: true, muted: this.options.startMuted ?? { audio: false, video: false } });
    this.snapshot = { ...this.snapshot, me, people: [me, ...this.snapshot.people.filter((p) => !p.local)] };
    this.happen({ type: 'phase', phase: 'in' }, { phase: 'in' });
    this.happen({ type: 'joined', person: me });
  }

  async hangUp(): Promise<void> {
    await this.did('hangUp');
    this.happen({ type: 'left' }, { phase: 'left' });
    this.happen({ type: 'closed' });
  }

  end = () => this.did('end');

  async setMuted(kind: 'audio' | 'video', muted: boolean): Promise<void> {
    await this.did('setMuted', kind, muted);
    const me = this.snapshot.me;
    if (me) this.happen({ type: 'muted', kind, muted, id: me.id }, { me: { ...me, muted: { ...me.muted, [kind]: muted } } });
  }

  async share(on: boolean, audio?: boolean): Promise<void> {
    await this.did('share', on, audio);
    const me = { ...this.snapshot.me!, sharing: on };
    this.happen({ type: 'sharing', on, id: me.id }, { me, people: this.snapshot.people.map((p) => (p.local ? me : p)) });
  }

  async setName(name: string): Promise<void> {
    await this.did('setName', name);
    this.happen({ type: 'name', id: this.snapshot.me?.id ?? 'local', name });
  }

  setAvatar = (url: string) => this.did('setAvatar', url);

  async setSubject(subject: string): Promise<void> {
    await this.did('setSubject', subject);
    this.happen({ type: 'subject', subject }, { subject });
  }

  givePassword = (password: string) => this.did('givePassword', password);
  setLobby = (on: boolean) => this.did('setLobby', on);

  setView(view: 'tile' | 'speaker'): void {
    this.happen({ type: 'view', view }, { view });
  }

  pin = (id?: string) => void this.did('pin', id);

  openChat(open: boolean): void {
    this.happen({ type: 'chat', open, unread: 0 }, { chatOpen: open });
  }

  async say(text: string, to?: string): Promise<void> {
    await this.did('say', text, to);
    this.happen({ type: 'message', from: 'me', name: 'Ann', text, at: 0, own: true, private: to !== undefined });
  }

  async raiseHand(up: boolean): Promise<void> {
    await this.did('raiseHand', up);
    this.happen({ type: 'hand', id: 'me', raised: up ? 1000 : undefined }, { me: { ...this.snapshot.me!, hand: up ? 1000 : undefined } });
  }

  react = (emoji: string) => this.did('react', emoji);
  host = {
    mute: (id: string, kind: Kind) => this.did('mute', id, kind),
    muteAll: (kind: Kind) => this.did('muteAll', kind),
    askUnmute: (id: string, kind: 'audio' | 'video') => this.did('askUnmute', id, kind),
    mayUnmute: (kind: 'audio' | 'video', allowed: boolean) => this.did('mayUnmute', kind, allowed),
    kick: (id: string) => this.did('kick', id),
    promote: (id: string) => this.did('promote', id),
    demote: (id: string) => this.did('demote', id),
    answer: (userId: string, admit: boolean) => this.did('answer', userId, admit),
  };

  devices() {
    const available = [
      { deviceId: 'mic', groupId: 'g', kind: 'audioinput', label: 'Microphone' },
      { deviceId: 'front', groupId: 'g', kind: 'videoinput', label: 'Front' },
      { deviceId: 'back', groupId: 'g', kind: 'videoinput', label: 'Back' },
    ] as MediaDeviceInfo[];
    return Promise.resolve({ available, current: { audioInput: 'mic', videoInput: 'front' } });
  }

  useDevice = (kind: MediaDeviceKind, id: string) => this.did('useDevice', kind, id);

  configure(change: Partial<Options>): void {
    this.options = { ...this.options, ...change };
  }

  setVolume = (id: string, volume: number) => void this.did('setVolume', id, volume);
  setQuality = (height: number) => void this.did('setQuality', height);
  setBlur = (on: boolean) => this.did('setBlur', on);
}
