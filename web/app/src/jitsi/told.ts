// SPDX-License-Identifier: Apache-2.0
// What happens in a meeting, in Jitsi's words.
import type { MeetingControl, MeetingEvent, Person } from '../meet/control.ts';
import { byKind, roleOf, sharers } from './requests.ts';

export type Emit = (name: string, data?: Record<string, unknown>) => void;

/** Translates events of one meeting. It remembers who was announced, so that nobody comes twice or goes without having come. */
export class Teller {
  private readonly control: MeetingControl;
  private readonly emit: Emit;
  private readonly names = new Map<string, string>();
  private readonly announced = new Set<string>();
  private moderated: { audio: boolean; video: boolean };
  private joined = false;
  private asked = false;

  constructor(control: MeetingControl, emit: Emit) {
    this.control = control;
    this.emit = emit;
    const { mayUnmute } = control.snapshot;
    this.moderated = { audio: !mayUnmute.audio, video: !mayUnmute.video };
  }

  /** What a program that comes now must know; `prejoin`: the person is asked before coming in. */
  begin(prejoin: boolean): void {
    this.emit('browser-support', { supported: typeof RTCPeerConnection === 'function' });
    this.emit('ready');
    if (prejoin || this.control.snapshot.phase !== 'prejoin') this.phase(this.control.snapshot.phase);
    void this.devices();
  }

  tell(e: MeetingEvent): void {
    switch (e.type) {
      case 'phase':
        if (e.error) this.problem(e.error.code, e.error.text, e.phase === 'failed');
        this.phase(e.phase);
        break;
      case 'joined':
        this.come();
        break;
      case 'came':
        if (this.joined) this.announce(e.person);
        break;
      case 'went':
        if (this.announced.delete(e.person.id)) this.emit('participant-left', { id: e.person.id });
        break;
      case 'muted':
        if (this.mine(e.id)) this.emit(`${e.kind}-mute-status-changed`, { muted: e.muted });
        else this.emit('participant-muted', { id: e.id, isMuted: e.muted, mediaType: e.kind });
        break;
      case 'speaker':
        this.emit('dominant-speaker-changed', { id: e.id });
        break;
      case 'sharing':
        if (this.mine(e.id)) this.emit('screen-sharing-status-changed', { on: e.on, details: e.on ? { sourceType: 'screen' } : {} });
        this.emit('content-sharing-participants-changed', { data: { sharingParticipantIds: sharers(this.control) } });
        break;
      case 'message':
        if (e.own) this.emit('outgoing-message', { message: e.text, privateMessage: e.private });
        else this.emit('incoming-message', { from: e.from, nick: e.name, privateMessage: e.private, message: e.text, stamp: new Date(e.at).toISOString() });
        break;
      case 'chat':
        this.emit('chat-updated', { unreadCount: e.unread, isOpen: e.open });
        break;
      case 'hand':
        this.emit('raise-hand-updated', { id: e.id, handRaised: e.raised ?? 0 });
        break;
      case 'knock':
        this.emit('knocking-participant', { participant: { id: e.userId, name: e.name } });
        break;
      case 'kicked':
        this.emit('participant-kicked-out', { kicked: this.party(e.id), kicker: e.by === undefined ? {} : this.party(e.by) });
        break;
      case 'role':
        this.emit('participant-role-changed', { id: e.id, role: roleOf(e.host) });
        break;
      case 'view':
        this.emit('tile-view-changed', { enabled: e.view === 'tile' });
        break;
      case 'name':
        this.names.set(e.id, e.name);
        this.emit('display-name-change', { id: e.id, displayname: e.name, formattedDisplayName: this.formatted(e.name, this.mine(e.id)) });
        break;
      case 'subject':
        this.emit('subject-change', { subject: e.subject });
        break;
      case 'devices':
        void this.devices();
        break;
      case 'button':
        this.emit('toolbar-button-clicked', { key: e.key, preventExecution: e.prevented });
        break;
      case 'left':
        this.leave();
        break;
      case 'closed':
        this.emit('video-ready-to-close');
        break;
      case 'error':
        this.problem(e.code, e.text, e.fatal);
        break;
      case 'reaction':
      case 'quality':
        break; // Jitsi tells nobody of these
    }
    this.moderation();
  }

  /** Jitsi's documentation shows the fields at the top, its page sends them inside `error`; programs read either. At the top, `name` is the event's. */
  problem(code: string, text: string, fatal: boolean): void {
    const error = { name: code, message: text, type: 'CONFERENCE', isFatal: fatal, details: {} };
    this.emit('error-occurred', { ...error, error });
  }

  private phase(phase: string): void {
    switch (phase) {
      case 'prejoin': {
        const name = this.control.snapshot.me?.name ?? '';
        this.emit('prejoin-screen-loaded', { id: 'local', displayName: name, formattedDisplayName: this.formatted(name, true) });
        break;
      }
      case 'password':
        if (!this.asked) this.emit('password-required');
        this.asked = true;
        break;
      case 'lobby':
        this.problem('conference.connectionError.membersOnly', 'Somebody has to let you in.', false);
        break;
      case 'in':
        this.come();
        break;
      case 'left':
      case 'kicked':
      case 'ended':
        this.leave();
        break;
    }
    if (phase !== 'password' && phase !== 'joining') this.asked = false;
  }

  /** We are in: ourselves first, then who was here before. */
  private come(): void {
    const { me, people, name } = this.control.snapshot;
    if (this.joined || !me) return;
    this.joined = true;
    this.names.set(me.id, me.name);
    this.emit('video-conference-joined', {
      roomName: name.toLowerCase(),
      id: me.id,
      displayName: me.name,
      formattedDisplayName: this.formatted(me.name, true),
      avatarURL: me.avatarUrl,
      breakoutRoom: false,
      visitor: false,
    });
    this.emit('participant-role-changed', { id: me.id, role: roleOf(me.host) });
    for (const person of people) if (!person.local) this.announce(person);
  }

  private announce(person: Person): void {
    if (person.local || this.announced.has(person.id)) return;
    this.announced.add(person.id);
    this.names.set(person.id, person.name);
    this.emit('participant-joined', {
      id: person.id,
      displayName: person.name,
      formattedDisplayName: this.formatted(person.name, false),
      userContext: person.userId ? { id: person.userId } : undefined,
    });
    if (person.avatarUrl) this.emit('avatar-changed', { id: person.id, avatarURL: person.avatarUrl });
    if (person.host) this.emit('participant-role-changed', { id: person.id, role: roleOf(true) });
  }

  private leave(): void {
    if (!this.joined) return;
    this.joined = false;
    this.announced.clear();
    this.emit('video-conference-left', { roomName: this.control.snapshot.name.toLowerCase() });
  }

  private async devices(): Promise<void> {
    const { available } = await this.control.devices().catch(() => ({ available: [] as MediaDeviceInfo[] }));
    this.emit('audio-availability-changed', { available: available.some((d) => d.kind === 'audioinput') });
    this.emit('video-availability-changed', { available: available.some((d) => d.kind === 'videoinput') });
    this.emit('device-list-changed', { devices: byKind(available) });
  }

  /** The meeting tells no event when the hosts' rule about unmuting changes. */
  private moderation(): void {
    const { mayUnmute } = this.control.snapshot;
    for (const kind of ['audio', 'video'] as const) {
      if (this.moderated[kind] !== mayUnmute[kind]) continue;
      this.moderated = { ...this.moderated, [kind]: !mayUnmute[kind] };
      this.emit('moderation-status-changed', { mediaType: kind, enabled: !mayUnmute[kind] });
    }
  }

  private party(id: string) {
    const local = this.mine(id);
    return { id, name: this.control.snapshot.people.find((p) => p.id === id)?.name ?? this.names.get(id) ?? '', local };
  }

  private mine(id: string): boolean {
    return this.control.snapshot.me?.id === id || id === 'local';
  }

  private formatted(name: string, me: boolean): string {
    return me ? `${name} (me)`.trim() : name;
  }
}
