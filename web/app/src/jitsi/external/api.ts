// SPDX-License-Identifier: Apache-2.0
// `JitsiMeetExternalAPI`: a class by the name and with the methods that programs know, which puts a meeting of this server into a page.
import { COMMANDS, EVENTS } from '../names.ts';
import { own } from '../params.ts';
import { Channel } from '../postis.ts';
import { cssLength, frameAddress, optionsFrom, type ApiOptions } from './address.ts';
import { Emitter, type Listener } from './emitter.ts';

interface Participant {
  participantId: string;
  displayName?: string;
  formattedDisplayName?: string;
  avatarURL?: string;
  email?: string;
}

type Data = Record<string, unknown>;

/** What the frame may use; a browser asks the person nevertheless. */
const ALLOW = ['autoplay', 'camera', 'clipboard-write', 'display-capture', 'fullscreen', 'microphone', 'picture-in-picture', 'screen-wake-lock', 'speaker-selection'];

/** Where this script lies; known only while it runs for the first time. */
const SCRIPT = typeof document === 'undefined' ? undefined : (document.currentScript as HTMLScriptElement | null)?.src;

let instances = 0;

export class JitsiMeetExternalAPI extends Emitter {
  private readonly frame: HTMLIFrameElement;
  private readonly channel: Channel;
  private readonly onload: (() => void) | undefined;
  private readonly people = new Map<string, Participant>();
  private readonly asked = new Map<number, { resolve: (v: unknown) => void; reject: (e: unknown) => void }>();
  private asks = 0;
  private me: string | undefined;
  private quality: unknown;

  constructor(domain: string, ...args: unknown[]) {
    super();
    const o: ApiOptions = optionsFrom(args);
    const id = instances++;
    const url = frameAddress(domain, id, o, SCRIPT);
    this.onload = o.onload;

    this.frame = document.createElement('iframe');
    this.frame.name = this.frame.id = `jitsiConferenceFrame${id}`;
    this.frame.allow = ALLOW.join('; ');
    this.frame.allowFullscreen = true;
    this.frame.title = 'Meeting';
    this.frame.style.border = '0';
    if (o.sandbox) this.frame.setAttribute('sandbox', o.sandbox);
    this.resize(o.width ?? '100%', o.height ?? '100%');
    this.frame.src = url;
    (o.parentNode ?? document.body).appendChild(this.frame);

    this.channel = new Channel({
      scope: `jitsi_meet_external_api_${id}`,
      peer: this.frame.contentWindow!,
      origin: new URL(url).origin,
      onMessage: (message) => this.hear(message),
    });
    if (Array.isArray(o.invitees) && o.invitees.length > 0) this.invite(o.invitees).catch(() => {});
  }

  executeCommand(name: string, ...args: unknown[]): void {
    const wire = own(COMMANDS, name);
    if (typeof wire !== 'string') return console.error(`JitsiMeetExternalAPI: there is no command ${name}.`);
    this.channel.send({ type: 'event', data: { name: wire, data: args } });
  }

  executeCommands(commands: Record<string, unknown>): void {
    for (const [name, args] of Object.entries(commands)) this.executeCommand(name, args);
  }

  /** Takes the meeting out of the page. */
  dispose(): void {
    this.emit('_willDispose');
    this.channel.close();
    for (const { reject } of this.asked.values()) reject(new Error('the meeting was taken away'));
    this.asked.clear();
    this.removeAllListeners();
    this.frame.remove();
  }

  addEventListener(name: string, listener: Listener): void {
    this.on(name, listener);
  }

  addEventListeners(listeners: Record<string, Listener>): void {
    for (const [name, listener] of Object.entries(listeners)) this.on(name, listener);
  }

  /** All listeners of an event go, whichever is named: so it has always been. */
  removeEventListener(name: string): void {
    this.removeAllListeners(name);
  }

  removeEventListeners(names: string[]): void {
    for (const name of names) this.removeAllListeners(name);
  }

  getSupportedCommands(): string[] {
    return Object.keys(COMMANDS);
  }

  getSupportedEvents(): string[] {
    return Object.values(EVENTS);
  }

  getIFrame(): HTMLIFrameElement {
    return this.frame;
  }

  getNumberOfParticipants(): number {
    return this.people.size;
  }

  getParticipantsInfo(): Participant[] {
    return [...this.people.values()].map((p) => ({ ...p }));
  }

  getDisplayName(id: string): string | undefined {
    return this.people.get(id)?.displayName;
  }

  getEmail(id: string): string | undefined {
    return this.people.get(id)?.email;
  }

  getAvatarURL(id: string): string | undefined {
    return this.people.get(id)?.avatarURL;
  }

  getVideoQuality(): unknown {
    return this.quality;
  }

  isVisitor(): boolean {
    return false;
  }

  isAudioMuted(): Promise<unknown> {
    return this.ask('is-audio-muted');
  }

  isVideoMuted(): Promise<unknown> {
    return this.ask('is-video-muted');
  }

  isAudioAvailable(): Promise<unknown> {
    return this.ask('is-audio-available');
  }

  isVideoAvailable(): Promise<unknown> {
    return this.ask('is-video-available');
  }

  isAudioDisabled(): Promise<unknown> {
    return this.ask('is-audio-disabled');
  }

  isSharingScreen(): Promise<unknown> {
    return this.ask('is-sharing-screen');
  }

  isStartSilent(): Promise<unknown> {
    return this.ask('is-start-silent');
  }

  isModerationOn(mediaType?: string): Promise<unknown> {
    return this.ask('is-moderation-on', { mediaType });
  }

  isParticipantForceMuted(participantId: string, mediaType?: string): Promise<unknown> {
    return this.ask('is-participant-force-muted', { participantId, mediaType });
  }

  isParticipantsPaneOpen(): Promise<unknown> {
    return this.ask('is-participants-pane-open');
  }

  isP2pActive(): Promise<unknown> {
    return this.ask('get-p2p-status');
  }

  invite(invitees: unknown[]): Promise<unknown> {
    return this.ask('invite', { invitees });
  }

  getRoomsInfo(includeHidden = false): Promise<unknown> {
    return this.ask('rooms-info', { includeHidden });
  }

  getContentSharingParticipants(): Promise<unknown> {
    return this.ask('get-content-sharing-participants');
  }

  getLivestreamUrl(): Promise<unknown> {
    return this.ask('get-livestream-url');
  }

  getDeploymentInfo(): Promise<unknown> {
    return this.ask('deployment-info');
  }

  getSessionId(): Promise<unknown> {
    return this.ask('session-id');
  }

  getSharedDocumentUrl(): Promise<unknown> {
    return this.ask('get-shared-document-url');
  }

  getCustomAvatarBackgrounds(): Promise<unknown> {
    return this.ask('get-custom-avatar-backgrounds');
  }

  getConnectionStats(): Promise<unknown> {
    return this.ask('connection-stats');
  }

  listBreakoutRooms(): Promise<unknown> {
    return this.ask('list-breakout-rooms');
  }

  captureLargeVideoScreenshot(): Promise<unknown> {
    return this.ask('capture-largevideo-screenshot');
  }

  getAvailableDevices(): Promise<unknown> {
    return this.askDevices('getAvailableDevices');
  }

  getCurrentDevices(): Promise<unknown> {
    return this.askDevices('getCurrentDevices');
  }

  isDeviceListAvailable(): Promise<unknown> {
    return this.askDevices('isDeviceListAvailable');
  }

  isDeviceChangeAvailable(deviceType?: string): Promise<unknown> {
    return this.askDevices('isDeviceChangeAvailable', { deviceType });
  }

  isMultipleAudioInputSupported(): Promise<unknown> {
    return this.askDevices('isMultipleAudioInputSupported');
  }

  setAudioInputDevice(label?: string, id?: string): Promise<unknown> {
    return this.askDevices('setDevice', { device: { id, kind: 'audioinput', label } });
  }

  setAudioOutputDevice(label?: string, id?: string): Promise<unknown> {
    return this.askDevices('setDevice', { device: { id, kind: 'audiooutput', label } });
  }

  setVideoInputDevice(label?: string, id?: string): Promise<unknown> {
    return this.askDevices('setDevice', { device: { id, kind: 'videoinput', label } });
  }

  pinParticipant(id?: string, videoType?: string): void {
    this.executeCommand('pinParticipant', id, videoType);
  }

  setLargeVideoParticipant(id?: string, videoType?: string): void {
    this.executeCommand('setLargeVideoParticipant', id, videoType);
  }

  resizeLargeVideo(width: number, height: number): void {
    this.executeCommand('resizeLargeVideo', width, height);
  }

  startRecording(options: object): void {
    this.executeCommand('startRecording', options);
  }

  stopRecording(mode: string, transcription?: boolean): void {
    this.executeCommand('stopRecording', mode, transcription);
  }

  setVirtualBackground(enabled: boolean, image?: string): void {
    this.executeCommand('setVirtualBackground', enabled, image);
  }

  private resize(width: unknown, height: unknown): void {
    this.frame.style.width = cssLength(width) ?? this.frame.style.width;
    this.frame.style.height = cssLength(height) ?? this.frame.style.height;
  }

  private ask(name: string, more: Data = {}): Promise<unknown> {
    return this.send({ name, ...more });
  }

  private askDevices(name: string, more: Data = {}): Promise<unknown> {
    return this.send({ type: 'devices', name, ...more });
  }

  private send(data: Data): Promise<unknown> {
    const id = ++this.asks;
    return new Promise((resolve, reject) => {
      this.asked.set(id, { resolve, reject });
      this.channel.send({ type: 'request', id, data });
    });
  }

  private hear(message: unknown): void {
    const type = own(message, 'type');
    if (type === 'response') {
      const id = own(message, 'id') as number;
      const waiting = this.asked.get(id);
      this.asked.delete(id);
      const error = own(message, 'error');
      if (error === undefined) waiting?.resolve(own(message, 'result'));
      else waiting?.reject(error);
    } else if (type === 'event') {
      const { name, ...data } = (own(message, 'data') ?? {}) as Data;
      this.note(name, data);
      const event = typeof name === 'string' ? own(EVENTS, name) : undefined;
      if (typeof event === 'string') this.emit(event, data);
    }
  }

  /** Keeps the list of participants. */
  private note(name: unknown, data: Data): void {
    const id = String(data.id);
    const known = this.people.get(id);
    switch (name) {
      case 'ready':
        this.onload?.();
        break;
      case 'video-conference-joined':
        this.me = id;
        this.people.clear();
        this.meet(id, data);
        break;
      case 'participant-joined':
        this.meet(id, data);
        break;
      case 'participant-left':
        this.people.delete(id);
        break;
      case 'video-conference-left':
        if (this.me !== undefined) this.people.delete(this.me);
        break;
      case 'display-name-change':
        if (known) Object.assign(known, { displayName: data.displayname, formattedDisplayName: data.formattedDisplayName });
        break;
      case 'email-change':
        if (known) known.email = data.email as string;
        break;
      case 'avatar-changed':
        if (known) known.avatarURL = data.avatarURL as string;
        break;
      case 'video-quality-changed':
        this.quality = data.videoQuality;
        break;
    }
  }

  private meet(id: string, data: Data): void {
    const { displayName, formattedDisplayName, avatarURL, email } = data as Partial<Participant>;
    this.people.set(id, { participantId: id, displayName, formattedDisplayName, avatarURL, email });
  }
}
