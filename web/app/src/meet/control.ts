// SPDX-License-Identifier: Apache-2.0
// The wall between the meeting page and those who drive it from outside: the Jitsi bridge and the Matrix widget. Everything the page
// can do is a method of MeetingControl, everything that happens in a meeting is a MeetingEvent. No React, no LiveKit behind this line.

export type Kind = 'audio' | 'video' | 'screen';

/** Where a client is known: the answer of `/user/{id}/openid/request_token`. Goes to the homeserver that serves the meeting, nowhere else. */
export interface OpenIdToken {
  access_token: string;
  matrix_server_name: string;
  token_type: string;
  /** Seconds. */
  expires_in: number;
}

/** One who takes part. `id` is the identity in the media session: stable as long as the person stays, also over a reload. */
export interface Person {
  id: string;
  name: string;
  userId?: string;
  avatarUrl?: string;
  local: boolean;
  host: boolean;
  muted: { audio: boolean; video: boolean };
  /** Shows a screen. */
  sharing: boolean;
  /** Unix milliseconds at which the hand went up. */
  hand?: number;
  speaking: boolean;
  quality: 'excellent' | 'good' | 'poor' | 'lost' | 'unknown';
}

/** What the page was opened with: its own address, the fragment of a Jitsi embedder, or the parameters of a widget. */
export interface Options {
  /** As in the path, percent-decoded: one segment, or `tenant/name`. The server normalises it. */
  name: string;
  displayName?: string;
  avatarUrl?: string;
  email?: string;
  jwt?: string;
  password?: string;
  subject?: string;
  language?: string;
  theme?: 'light' | 'dark';
  /** False joins at once, without the page on which one looks at oneself. */
  prejoin: boolean;
  startMuted: { audio: boolean; video: boolean };
  /** No pictures of others are fetched and none is sent. */
  audioOnly: boolean;
  tileView?: boolean;
  /** Keys of Jitsi's toolbar buttons; absent means all. */
  toolbarButtons?: string[];
  /** Buttons whose use is told as `button`; with preventExecution nothing else happens. */
  notifyClick?: { key: string; preventExecution: boolean }[];
  hideSubject?: boolean;
  hideSelf?: boolean;
  openid?: () => Promise<OpenIdToken>;
  /** The Matrix room whose meeting this is (widget): members of it may join. */
  roomId?: string;
  /** The call of a Matrix room, which a member of it begins or joins from there: signed in, under his own name. */
  call?: boolean;
  /** Runs in somebody else's page: no invite dialog, nothing is kept after hanging up. */
  embedded: boolean;
  devices?: { audioInput?: string; audioOutput?: string; videoInput?: string };
}

export type Phase = 'prejoin' | 'joining' | 'password' | 'lobby' | 'in' | 'reconnecting' | 'left' | 'kicked' | 'ended' | 'failed';

export interface Knock {
  userId: string;
  name: string;
}

/** The meeting as it stands; a new object after each change. */
export interface Snapshot {
  phase: Phase;
  name: string;
  subject: string;
  people: Person[];
  me?: Person;
  /** How one will be muted on coming in. */
  wish?: { audio: boolean; video: boolean };
  /** Identity of who speaks, or spoke last. */
  speaker?: string;
  view: 'tile' | 'speaker';
  pinned?: string;
  chatOpen: boolean;
  unread: number;
  lobby: boolean;
  password: boolean;
  knocks: Knock[];
  /** Whether those who are not hosts may unmute themselves. */
  mayUnmute: { audio: boolean; video: boolean };
}

export type MeetingEvent =
  | { type: 'phase'; phase: Phase; error?: { code: string; text: string } }
  | { type: 'joined'; person: Person }
  | { type: 'came'; person: Person }
  | { type: 'went'; person: Person }
  | { type: 'muted'; kind: 'audio' | 'video'; muted: boolean; id: string }
  | { type: 'speaker'; id: string }
  | { type: 'sharing'; on: boolean; id: string }
  | { type: 'message'; from: string; name: string; text: string; at: number; own: boolean; private: boolean }
  | { type: 'chat'; open: boolean; unread: number }
  | { type: 'hand'; id: string; raised?: number }
  | { type: 'knock'; userId: string; name: string }
  | { type: 'kicked'; id: string; by?: string }
  | { type: 'role'; id: string; host: boolean }
  | { type: 'view'; view: 'tile' | 'speaker' }
  | { type: 'name'; id: string; name: string }
  | { type: 'subject'; subject: string }
  | { type: 'devices' }
  | { type: 'button'; key: string; prevented: boolean }
  | { type: 'left' }
  /** The page has nothing more to show: an embedder may take its frame away. */
  | { type: 'closed' }
  | { type: 'error'; code: string; text: string; fatal: boolean }
  | { type: 'reaction'; id: string; emoji: string }
  | { type: 'quality'; id: string };

/** What a host may do to others; refused by the server for everybody else. */
export interface HostControl {
  mute(id: string, kind: Kind): Promise<void>;
  muteAll(kind: Kind): Promise<void>;
  askUnmute(id: string, kind: 'audio' | 'video'): Promise<void>;
  mayUnmute(kind: 'audio' | 'video', allowed: boolean): Promise<void>;
  kick(id: string): Promise<void>;
  promote(id: string): Promise<void>;
  demote(id: string): Promise<void>;
  /** Lets one who knocks in, or sends them away. */
  answer(userId: string, admit: boolean): Promise<void>;
}

/** One meeting. Methods that the server can refuse reject with an Error whose message may be shown. */
export interface MeetingControl {
  readonly snapshot: Snapshot;
  /** Returns a function that ends the subscription. */
  subscribe(f: (e: MeetingEvent) => void): () => void;
  join(): Promise<void>;
  hangUp(): Promise<void>;
  /** Ends it for everybody; hosts only. */
  end(): Promise<void>;
  setMuted(kind: 'audio' | 'video', muted: boolean): Promise<void>;
  share(on: boolean, audio?: boolean): Promise<void>;
  setName(name: string): Promise<void>;
  setAvatar(url: string): Promise<void>;
  setSubject(subject: string): Promise<void>;
  /** Answers the question for a password; sets or (empty) removes it when nobody asks and this is a host. */
  givePassword(password: string): Promise<void>;
  setLobby(on: boolean): Promise<void>;
  setView(view: 'tile' | 'speaker'): void;
  /** Without an id nobody is pinned any more. */
  pin(id?: string): void;
  openChat(open: boolean): void;
  /** To everybody, or to one person's eyes only. */
  say(text: string, to?: string): Promise<void>;
  raiseHand(up: boolean): Promise<void>;
  react(emoji: string): Promise<void>;
  host: HostControl;
  devices(): Promise<{ available: MediaDeviceInfo[]; current: { audioInput?: string; audioOutput?: string; videoInput?: string } }>;
  useDevice(kind: MediaDeviceKind, id: string): Promise<void>;
  /** Changes what the page was opened with. */
  configure(change: Partial<Options>): void;
  /** 0 to 1, for this page only. */
  setVolume(id: string, volume: number): void;
  /** The height in pixels that is fetched of others at most. */
  setQuality(height: number): void;
  setBlur(on: boolean): Promise<void>;
}
