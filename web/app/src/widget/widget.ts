// SPDX-License-Identifier: Apache-2.0
// A meeting as a widget of a Matrix client. It asks for one capability, to stay on the screen during a meeting, and for an OpenID
// token, from which our server learns who this is; the client's rooms and messages are none of its business.
import { WidgetApi, type IWidgetApiRequest } from 'matrix-widget-api';
import { hostOf, optionsOf, picture, withoutSecrets } from '../jitsi/options.ts';
import { own, Params, words } from '../jitsi/params.ts';
import type { MeetingControl, MeetingEvent, OpenIdToken, Options } from '../meet/control.ts';
import { sayAgain } from './early.ts';
import { guard } from './guard.ts';

const JOIN = 'io.element.join';
const HANG_UP = 'im.vector.hangup';
const MUTE = 'io.element.device_mute';
const TILES = 'io.element.tile_layout';
const SPOTLIGHT = 'io.element.spotlight_layout';
const PARTICIPANTS = 'io.element.participants';
const CLOSE = 'io.element.close';

/** Connects a meeting with the Matrix client around its page; does nothing where there is none. Returns what ends it. */
export function attach(meeting: MeetingControl): () => void {
  const url = new URL(location.href);
  const at = hostOf(url) === 'widget' ? parentOf(url) : undefined;
  if (!at) return () => {};
  const widget = new Widget(meeting, at.widgetId, at.origin);
  const options = { ...optionsOf(url), ...said(url) };
  // To a call one comes from our own client, as who is signed in there.
  meeting.configure({ ...options, embedded: true, openid: options.call ? undefined : () => widget.openid() });
  history.replaceState(history.state, '', withoutSecrets(url));
  return () => widget.close();
}

/** Which widget we are, and the origin of the client that says so. */
export function parentOf(url: URL): { widgetId: string; origin: string } | undefined {
  const widgetId = url.searchParams.get('widgetId');
  const parent = url.searchParams.get('parentUrl');
  if (!widgetId || widgetId.length > 255 || !parent || !URL.canParse(parent)) return undefined;
  const { protocol, origin } = new URL(parent);
  return protocol === 'https:' || protocol === 'http:' ? { widgetId, origin } : undefined;
}

/** What the client filled into the address; a variable that it does not know stays as it was. */
export function said(url: URL): Partial<Options> {
  const params = new Params(url.hash, false);
  const filled = (name: string, longest: number) => {
    const value = params.text(name, longest);
    return value?.startsWith('$') ? undefined : value;
  };
  const options: Partial<Options> = {};
  const roomId = filled('room_id', 255);
  if (roomId?.startsWith('!')) options.roomId = roomId;
  if (params.flag('call')) options.call = true;
  const displayName = filled('display_name', 100);
  if (displayName) options.displayName = displayName;
  const avatarUrl = picture(filled('avatar_url', 2048));
  if (avatarUrl) options.avatarUrl = avatarUrl;
  const theme = filled('theme', 40);
  if (theme) options.theme = theme.includes('dark') || theme.includes('black') ? 'dark' : 'light';
  const language = filled('lang', 12);
  if (language && /^[a-z]{2,3}([-_][a-z0-9]{2,8})?$/i.test(language)) options.language = language;
  return options;
}

class Widget {
  private readonly meeting: MeetingControl;
  private readonly api: WidgetApi;
  private readonly unguard: () => void;
  private readonly unsubscribe: () => void;
  private joined = false;

  constructor(meeting: MeetingControl, widgetId: string, origin: string) {
    this.meeting = meeting;
    this.unguard = guard(window.parent, origin, 'toWidget');
    this.api = new WidgetApi(widgetId, origin);
    this.api.requestCapability('m.always_on_screen');
    this.on(JOIN, async (data) => {
      await this.choose(data);
      await meeting.join();
    });
    this.on(HANG_UP, () => meeting.hangUp());
    this.on(MUTE, async (data) => {
      for (const [kind, name] of [['audio', 'audio_enabled'], ['video', 'video_enabled']] as const) {
        const enabled = own(data, name);
        if (typeof enabled === 'boolean') await meeting.setMuted(kind, !enabled);
      }
      return this.enabled();
    });
    this.on(TILES, () => meeting.setView('tile'));
    this.on(SPOTLIGHT, () => meeting.setView('speaker'));
    this.api.on('action:theme_change', (e: CustomEvent<IWidgetApiRequest>) => {
      e.preventDefault();
      const name = words(own(e.detail.data, 'name'), 40) ?? '';
      meeting.configure({ theme: /dark|black/.test(name) ? 'dark' : 'light' });
      this.api.transport.reply(e.detail, {});
    });
    this.api.start();
    sayAgain();
    void this.api.sendContentLoaded().catch(() => {}); // clients that wait for the page to load need not be told
    this.unsubscribe = meeting.subscribe((e) => this.tell(e));
  }

  /** Who we are, from the client; it may ask the person first. */
  async openid(): Promise<OpenIdToken> {
    const { access_token, matrix_server_name, token_type, expires_in } = await this.api.requestOpenIDConnectToken();
    if (!access_token || !matrix_server_name) throw new Error('The client does not say who you are.');
    return { access_token, matrix_server_name, token_type: token_type ?? 'Bearer', expires_in: expires_in ?? 3600 };
  }

  close(): void {
    this.unsubscribe();
    this.api.transport.stop();
    this.unguard();
  }

  /** Does what the client asks for and answers with what came of it. */
  private on(action: string, act: (data: unknown) => unknown): void {
    this.api.on(`action:${action}`, (e: CustomEvent<IWidgetApiRequest>) => {
      e.preventDefault();
      void (async () => {
        try {
          this.api.transport.reply(e.detail, ((await act(e.detail.data)) ?? {}) as Record<string, unknown>);
        } catch (error) {
          this.api.transport.reply(e.detail, { error: { message: error instanceof Error ? error.message : 'That did not work.' } });
        }
      })();
    });
  }

  /** The client's choice for joining: labels of devices, null for one that shall be off. */
  private async choose(data: unknown): Promise<void> {
    for (const [kind, name, device] of [['audio', 'audioInput', 'audioinput'], ['video', 'videoInput', 'videoinput']] as const) {
      const label = own(data, name);
      if (label === null) await this.meeting.setMuted(kind, true);
      if (typeof label !== 'string') continue;
      const found = (await this.meeting.devices()).available.find((d) => d.kind === device && d.label === label);
      if (found) await this.meeting.useDevice(device, found.deviceId);
    }
  }

  private tell(e: MeetingEvent): void {
    switch (e.type) {
      case 'phase':
        if (e.phase === 'in') this.entered();
        else if (['left', 'kicked', 'ended', 'failed'].includes(e.phase)) this.leave(e.error?.text);
        break;
      case 'joined':
        this.entered();
        break;
      case 'came':
      case 'went':
      case 'name':
        this.participants();
        break;
      case 'muted':
        if (e.id === this.meeting.snapshot.me?.id && this.joined) this.say(MUTE, this.enabled());
        break;
      case 'view':
        this.say(e.view === 'tile' ? TILES : SPOTLIGHT, {});
        break;
      case 'left':
        this.leave();
        break;
      case 'closed':
        this.say(CLOSE, {});
        break;
    }
  }

  /** The session is there before its people are: then this is called again. */
  private entered(): void {
    if (this.joined || !this.meeting.snapshot.me) return;
    this.joined = true;
    void this.api.setAlwaysOnScreen(true).catch(() => {});
    this.say(JOIN, {});
    this.say(MUTE, this.enabled());
    this.participants();
  }

  private leave(why?: string): void {
    if (!this.joined) return;
    this.joined = false;
    void this.api.setAlwaysOnScreen(false).catch(() => {});
    this.say(HANG_UP, why ? { errorMessage: why } : {});
  }

  private participants(): void {
    if (!this.joined) return;
    const participants = this.meeting.snapshot.people.map((p) => ({ participantId: p.id, displayName: p.name, userId: p.userId }));
    this.say(PARTICIPANTS, { participants });
  }

  private enabled() {
    const { muted } = this.meeting.snapshot.me ?? { muted: { audio: false, video: false } };
    return { audio_enabled: !muted.audio, video_enabled: !muted.video };
  }

  /** Clients need not know these words; one that does not says so, or nothing. */
  private say(action: string, data: object): void {
    void this.api.transport.send(action as never, data as never).catch(() => {});
  }
}
