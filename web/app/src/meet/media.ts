// SPDX-License-Identifier: Apache-2.0
// The media session of one meeting, on livekit-client. Loaded after the first paint: nothing before it knows LiveKit.
import {
  ConnectionState,
  DisconnectReason,
  ExternalE2EEKeyProvider,
  LocalAudioTrack,
  LocalVideoTrack,
  type Participant,
  RemoteTrackPublication,
  Room,
  RoomEvent,
  ScreenSharePresets,
  Track,
  VideoPreset,
  VideoQuality,
} from 'livekit-client';
import E2EEWorker from 'livekit-client/e2ee-worker?worker';
import type { Kind, Person } from './control.ts';
import { AUDIO_WISH, type Devices, videoWish } from './preview.ts';
import type { Pictures } from './state.ts';
import { sendThinnable } from './thin.ts';

/** What a session ended of, as far as the page has to know. */
export type Gone = 'asked' | 'removed' | 'ended' | 'elsewhere' | 'lost';

/** Told by the session; all calls come from events of the browser, never from inside a call to Media. */
export interface Listener {
  /** Somebody's name, tracks, mutes, hands, … are not what they were. */
  changed(): void;
  /** The loudest first. */
  speakers(ids: string[]): void;
  metadata(text: string): void;
  /** A packet of ours: `from` is "" when the server itself sent it. */
  packet(topic: string, payload: Uint8Array, from: string): void;
  /** `event` is the Matrix event that says the same. */
  text(from: string, text: string, about: { id: string; at: number; private: boolean; event?: string }): void;
  connection(state: 'connected' | 'reconnecting'): void;
  gone(reason: Gone): void;
  devices(): void;
  trouble(kind: 'audio' | 'video', error: unknown): void;
  silent(blocked: boolean): void;
  unreadable(): void;
}

export interface Start {
  url: string;
  token: string;
  iceServers?: RTCIceServer[];
  relayOnly: boolean;
  /** 32 bytes, base64url. */
  key?: string;
  camera?: MediaStreamTrack;
  microphone?: MediaStreamTrack;
  muted: { audio: boolean; video: boolean };
  /** Small pictures out and in. */
  small: boolean;
  audioOnly: boolean;
  devices: Devices;
}

export const CHAT_TOPIC = 'lk.chat';
const HAND = 'tb.hand';

const small: VideoPreset = new VideoPreset(320, 180, 110_000, 12);

export class Media {
  readonly room: Room;
  private readonly volumes = new Map<string, number>();
  private readonly sounds: HTMLElement;
  private audioOnly = false;
  private quality = Infinity;
  private closing = false;
  private readonly small: boolean;
  private worker?: Worker;

  constructor(
    private readonly listener: Listener,
    private readonly start: Start,
  ) {
    this.small = start.small;
    this.audioOnly = start.audioOnly;
    let encryption;
    if (start.key) {
      this.worker = new E2EEWorker();
      const keyProvider = new ExternalE2EEKeyProvider();
      encryption = { keyProvider, worker: this.worker };
      this.key = keyProvider.setKey(bytesOf(start.key));
    }
    this.room = new Room({
      adaptiveStream: true,
      dynacast: true,
      stopLocalTrackOnUnpublish: true,
      videoCaptureDefaults: { resolution: this.small ? small.resolution : undefined, deviceId: start.devices.videoInput },
      audioCaptureDefaults: { ...AUDIO_WISH, deviceId: start.devices.audioInput } as object,
      audioOutput: start.devices.audioOutput ? { deviceId: start.devices.audioOutput } : undefined,
      publishDefaults: {
        simulcast: !this.small,
        videoEncoding: this.small ? small.encoding : undefined,
        screenShareEncoding: ScreenSharePresets.h1080fps15.encoding,
        dtx: true,
        red: !start.key,
        stopMicTrackOnMute: false,
      },
      encryption,
    });
    this.sounds = document.createElement('div');
    this.sounds.hidden = true;
    document.body.append(this.sounds);
    this.hearRoom();
  }

  private readonly key?: Promise<void>;

  async connect(): Promise<void> {
    const { room, start } = this;
    if (this.key) {
      await this.key;
      await room.setE2EEEnabled(true);
    }
    const rtcConfig: RTCConfiguration = {};
    if (start.iceServers?.length) rtcConfig.iceServers = start.iceServers;
    if (start.relayOnly) rtcConfig.iceTransportPolicy = 'relay';
    room.registerTextStreamHandler(CHAT_TOPIC, (reader, from) => {
      void reader
        .readAll()
        .then((text) => this.listener.text(from.identity, text, { id: reader.info.id, at: reader.info.timestamp, private: reader.info.attributes?.['tb.private'] === '1', event: reader.info.attributes?.['tb.event'] }))
        .catch(() => {});
    });
    await room.connect(start.url, start.token, { rtcConfig, autoSubscribe: true });
    this.tuneAll();
  }

  /** Sends microphone and camera, as far as they are wanted. */
  async publish(): Promise<void> {
    await Promise.all([this.begin('audio'), this.begin('video')]);
    this.listener.changed();
  }

  /** Publishes what the preview already had open, or opens it. */
  private async begin(kind: 'audio' | 'video'): Promise<void> {
    const { microphone, camera, muted, devices } = this.start;
    const track = kind === 'audio' ? microphone : camera;
    try {
      if (muted[kind]) {
        track?.stop();
      } else if (track && track.readyState === 'live') {
        const local = kind === 'audio' ? new LocalAudioTrack(track, { ...AUDIO_WISH, deviceId: devices.audioInput }, false) : new LocalVideoTrack(track, { ...videoWish(this.small), deviceId: devices.videoInput }, false);
        await this.room.localParticipant.publishTrack(local, { source: kind === 'audio' ? Track.Source.Microphone : Track.Source.Camera });
      } else {
        await this.setMuted(kind, false);
      }
    } catch (error) {
      this.listener.trouble(kind, error);
    }
  }

  private hearRoom(): void {
    const { room, listener } = this;
    const change = () => listener.changed();
    for (const event of [
      RoomEvent.ParticipantConnected,
      RoomEvent.ParticipantDisconnected,
      RoomEvent.TrackUnpublished,
      RoomEvent.LocalTrackUnpublished,
      RoomEvent.TrackMuted,
      RoomEvent.TrackUnmuted,
      RoomEvent.ParticipantMetadataChanged,
      RoomEvent.ParticipantNameChanged,
      RoomEvent.ParticipantAttributesChanged,
      RoomEvent.ConnectionQualityChanged,
      RoomEvent.TrackUnsubscribed,
      RoomEvent.TrackStreamStateChanged,
      RoomEvent.LocalTrackPublished,
      RoomEvent.ParticipantPermissionsChanged,
    ] as const)
      room.on(event as RoomEvent.ParticipantPermissionsChanged, change);
    room.on(RoomEvent.TrackPublished, (pub) => {
      this.tune(pub);
      listener.changed();
    });
    room.on(RoomEvent.LocalTrackPublished, (pub) => {
      if (pub.source === Track.Source.Camera) void sendThinnable(pub.videoTrack?.sender);
    });
    room.on(RoomEvent.TrackSubscribed, (track, pub, p) => {
      if (track.kind === Track.Kind.Audio) {
        const element = track.attach();
        this.sounds.append(element);
        if (pub.source === Track.Source.Microphone) p.setVolume(this.volumes.get(p.identity) ?? 1);
      }
      listener.changed();
    });
    room.on(RoomEvent.TrackUnsubscribed, (track) => {
      if (track.kind === Track.Kind.Audio) for (const element of track.detach()) element.remove();
    });
    room.on(RoomEvent.ActiveSpeakersChanged, (speakers) => listener.speakers(speakers.map((p) => p.identity)));
    room.on(RoomEvent.RoomMetadataChanged, (text) => listener.metadata(text));
    room.on(RoomEvent.DataReceived, (payload, _participant, _kind, topic, _encryption, from) => listener.packet(topic ?? '', payload, from ?? ''));
    room.on(RoomEvent.MediaDevicesChanged, () => listener.devices());
    room.on(RoomEvent.ActiveDeviceChanged, () => listener.devices());
    room.on(RoomEvent.AudioPlaybackStatusChanged, () => listener.silent(!room.canPlaybackAudio));
    room.on(RoomEvent.EncryptionError, () => listener.unreadable());
    room.on(RoomEvent.Reconnecting, () => listener.connection('reconnecting'));
    room.on(RoomEvent.SignalReconnecting, () => listener.connection('reconnecting'));
    room.on(RoomEvent.Reconnected, () => {
      listener.connection('connected');
      listener.changed();
      if (room.metadata !== undefined) listener.metadata(room.metadata);
    });
    room.on(RoomEvent.Disconnected, (reason) => {
      this.release();
      listener.gone(this.closing ? 'asked' : goneFor(reason));
    });
  }

  /** Applies what is wanted of others' pictures to one of them. */
  private tune(pub: RemoteTrackPublication): void {
    if (pub.kind !== Track.Kind.Video) return;
    const wanted = !this.audioOnly || pub.source === Track.Source.ScreenShare;
    if (pub.isDesired !== wanted) pub.setSubscribed(wanted);
    if (pub.source === Track.Source.Camera) pub.setVideoQuality(this.quality < 240 ? VideoQuality.LOW : this.quality < 600 ? VideoQuality.MEDIUM : VideoQuality.HIGH);
  }

  private tuneAll(): void {
    for (const p of this.room.remoteParticipants.values()) for (const pub of p.trackPublications.values()) this.tune(pub as RemoteTrackPublication);
  }

  get metadata(): string {
    return this.room.metadata ?? '';
  }

  get me(): string {
    return this.room.localParticipant.identity;
  }

  /** Whether this one may publish that; hosts can take it away. */
  mayPublish(kind: Kind): boolean {
    const permissions = this.room.localParticipant.permissions;
    if (!permissions) return true;
    // 1 camera, 2 microphone, 3 screen: numbers of LiveKit's TrackSource.
    const source = kind === 'audio' ? 2 : kind === 'video' ? 1 : 3;
    return permissions.canPublish && (permissions.canPublishSources.length === 0 || permissions.canPublishSources.includes(source));
  }

  people(hosts: Set<string>, speaking: Set<string>): Person[] {
    if (this.room.state === ConnectionState.Disconnected) return [];
    const { localParticipant: me, remoteParticipants: others } = this.room;
    return [me, ...others.values()].filter((p) => p.identity !== '').map((p) => this.person(p, hosts, speaking));
  }

  private person(p: Participant, hosts: Set<string>, speaking: Set<string>): Person {
    const about = aboutOf(p.metadata);
    const hand = Number(p.attributes[HAND] || 0);
    const on = (source: Track.Source) => {
      const pub = p.getTrackPublication(source);
      return pub !== undefined && !pub.isMuted;
    };
    return {
      id: p.identity,
      name: clean(p.name ?? '') || clean(about.userId ?? '').replace(/^@([^:]*):.*$/, '$1') || '?',
      userId: about.userId,
      avatarUrl: about.avatarUrl,
      local: p.isLocal,
      host: hosts.has(p.identity),
      muted: { audio: !on(Track.Source.Microphone), video: !on(Track.Source.Camera) },
      sharing: on(Track.Source.ScreenShare),
      hand: hand > 0 ? hand : undefined,
      speaking: speaking.has(p.identity),
      quality: p.connectionQuality,
    };
  }

  pictures(): Record<string, Pictures> {
    const out: Record<string, Pictures> = {};
    for (const p of [this.room.localParticipant, ...this.room.remoteParticipants.values()]) {
      const key = (source: Track.Source) => {
        const pub = p.getTrackPublication(source);
        return pub?.track && !pub.isMuted ? `${pub.trackSid}.${pub.track.mediaStreamTrack?.id ?? ''}` : undefined;
      };
      out[p.identity] = { camera: key(Track.Source.Camera), screen: key(Track.Source.ScreenShare) };
    }
    return out;
  }

  /** Shows a picture in a video element until the returned function is called. */
  attach(id: string, what: 'camera' | 'screen', element: HTMLVideoElement): () => void {
    const p = id === this.me ? this.room.localParticipant : this.room.remoteParticipants.get(id);
    const track = p?.getTrackPublication(what === 'camera' ? Track.Source.Camera : Track.Source.ScreenShare)?.track;
    if (!track) return () => {};
    track.attach(element);
    return () => {
      track.detach(element);
    };
  }

  async setMuted(kind: 'audio' | 'video', muted: boolean): Promise<void> {
    const me = this.room.localParticipant;
    if (kind === 'audio') await me.setMicrophoneEnabled(!muted, AUDIO_WISH as object);
    else await me.setCameraEnabled(!muted, this.small ? { resolution: small.resolution } : { resolution: { width: 1280, height: 720, frameRate: 30 } });
    this.listener.changed();
  }

  async share(on: boolean, audio: boolean): Promise<void> {
    const me = this.room.localParticipant;
    await me.setScreenShareEnabled(on, { audio: audio && { autoGainControl: false, echoCancellation: false, noiseSuppression: false }, contentHint: 'detail', selfBrowserSurface: 'exclude', surfaceSwitching: 'include', systemAudio: audio ? 'include' : 'exclude' });
    this.listener.changed();
  }

  setName(name: string): Promise<void> {
    return this.room.localParticipant.setName(name);
  }

  setAvatar(url: string): Promise<void> {
    const about = aboutOf(this.room.localParticipant.metadata);
    return this.room.localParticipant.setMetadata(JSON.stringify({ user_id: about.userId, avatar_url: url || undefined }));
  }

  raiseHand(at: number): Promise<void> {
    return this.room.localParticipant.setAttributes({ [HAND]: at > 0 ? String(at) : '' });
  }

  async say(text: string, { to, event }: { to?: string; event?: string }): Promise<string> {
    const attributes: Record<string, string> = {};
    if (to) attributes['tb.private'] = '1';
    if (event) attributes['tb.event'] = event;
    const info = await this.room.localParticipant.sendText(text, { topic: CHAT_TOPIC, destinationIdentities: to ? [to] : undefined, attributes });
    return info.id;
  }

  send(topic: string, value: unknown): Promise<void> {
    return this.room.localParticipant.publishData(new TextEncoder().encode(JSON.stringify(value)), { topic, reliable: true });
  }

  async useDevice(kind: MediaDeviceKind, id: string): Promise<void> {
    await this.room.switchActiveDevice(kind, id || 'default');
  }

  setVolume(id: string, volume: number): void {
    this.volumes.set(id, volume);
    this.room.remoteParticipants.get(id)?.setVolume(volume);
  }

  setAudioOnly(on: boolean): void {
    this.audioOnly = on;
    this.tuneAll();
  }

  setQuality(height: number): void {
    this.quality = height;
    this.tuneAll();
  }

  /** The camera as it is published, for a filter over it. */
  get camera(): LocalVideoTrack | undefined {
    return this.room.localParticipant.getTrackPublication(Track.Source.Camera)?.videoTrack as LocalVideoTrack | undefined;
  }

  /** After a click: the browser plays sound now. */
  async playSound(): Promise<void> {
    await this.room.startAudio();
  }

  /** Leaves the media session; what the server removed needs none of this. */
  async close(): Promise<void> {
    this.closing = true;
    await this.room.disconnect(true);
    this.release();
  }

  private release(): void {
    this.sounds.remove();
    this.worker?.terminate();
    this.worker = undefined;
  }
}

function goneFor(reason: DisconnectReason | undefined): Gone {
  switch (reason) {
    case DisconnectReason.CLIENT_INITIATED:
      return 'asked';
    case DisconnectReason.PARTICIPANT_REMOVED:
      return 'removed';
    case DisconnectReason.ROOM_DELETED:
    case DisconnectReason.ROOM_CLOSED:
      return 'ended';
    case DisconnectReason.DUPLICATE_IDENTITY:
      return 'elsewhere';
    default:
      return 'lost';
  }
}

/** The server's words about a participant. */
export function aboutOf(metadata: string | undefined): { userId?: string; avatarUrl?: string } {
  try {
    const about = JSON.parse(metadata || '{}') as Record<string, unknown> | null;
    const text = (key: string) => (typeof about?.[key] === 'string' && about[key] !== '' ? (about[key] as string) : undefined);
    return { userId: text('user_id'), avatarUrl: text('avatar_url') };
  } catch {
    return {};
  }
}

/** A name as it may be shown: no control and direction characters, which would let one pass for another; not endless. */
export function clean(name: string): string {
  return [...name.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, '').trim()].slice(0, 100).join('');
}

function bytesOf(key: string): ArrayBuffer {
  const text = atob(key.replace(/-/g, '+').replace(/_/g, '/'));
  return Uint8Array.from(text, (c) => c.charCodeAt(0)).buffer;
}
