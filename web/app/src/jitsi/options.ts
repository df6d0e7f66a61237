// SPDX-License-Identifier: Apache-2.0
// What the address of a meeting page says about how it shall look, for links of Jitsi and for frames of its IFrame API.
import type { Options } from '../meet/control.ts';
import { own, Params, words } from './params.ts';

/** Three parts of base64url, as a signed token has them. */
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]*$/;
const LANGUAGE = /^[a-z]{2,3}([-_][a-z0-9]{2,8})?$/i;
/** The name of an address's parameter that must not stay where it is seen: in the address bar, in histories, in pictures. */
const SECRETS = new Set(['jwt', 'token', 'access_token', 'openid', 'password']);

/** Who the page around us is: a script of Jitsi's IFrame API, a Matrix client that shows us as a widget, or nobody. */
export function hostOf(url: URL, framed: boolean = window.parent !== window): 'jitsi' | 'widget' | undefined {
  if (!framed) return undefined;
  if (apiId(url) !== undefined) return 'jitsi';
  return url.searchParams.get('widgetId') && url.searchParams.get('parentUrl') ? 'widget' : undefined;
}

/** The number under which the script in the page around us knows this frame. */
export function apiId(url: URL): number | undefined {
  const id = new Params(url.hash, true).number('jitsi_meet_external_api_id');
  return id !== undefined && Number.isInteger(id) && id >= 0 ? id : undefined;
}

/** The settings in an address. What is missing or makes no sense is left out. */
export function optionsOf(url: URL): Partial<Options> {
  const hash = new Params(url.hash, true);
  const query = new Params(url.search, false);
  const options: Partial<Options> = { ...configured((name) => hash.get(`config.${name}`)) };

  const put = <K extends keyof Options>(key: K, value: Options[K] | undefined) => {
    if (value !== undefined) options[key] = value;
  };
  put('displayName', hash.text('userInfo.displayName', 100));
  put('email', hash.text('userInfo.email', 320));
  put('avatarUrl', picture(hash.get('userInfo.avatarURL') ?? hash.get('userInfo.avatarUrl')));
  const token = hash.text('jwt', 16384) ?? query.text('jwt', 16384);
  put('jwt', token && TOKEN.test(token) ? token : undefined);
  put('language', language(query.get('lang')) ?? language(hash.get('lang')) ?? options.language);
  put('toolbarButtons', options.toolbarButtons ?? hash.list('interfaceConfig.TOOLBAR_BUTTONS'));
  const devices = { audioInput: hash.text('devices.audioInput', 300), audioOutput: hash.text('devices.audioOutput', 300), videoInput: hash.text('devices.videoInput', 300) };
  if (devices.audioInput ?? devices.audioOutput ?? devices.videoInput) options.devices = devices;
  return options;
}

/** Jitsi's `config`, whole or in parts, as our options. `get` finds a dotted name. */
export function configured(get: (name: string) => unknown): Partial<Options> {
  const flag = (...names: string[]) => {
    for (const name of names) {
      const value = get(name);
      if (typeof value === 'boolean') return value;
      if (value === 'true' || value === 'false') return value === 'true';
    }
    return undefined;
  };
  const options: Partial<Options> = {};
  const put = <K extends keyof Options>(key: K, value: Options[K] | undefined) => {
    if (value !== undefined) options[key] = value;
  };
  const audio = flag('startWithAudioMuted');
  const video = flag('startWithVideoMuted');
  if (audio !== undefined || video !== undefined) options.startMuted = { audio: audio ?? false, video: video ?? false };
  put('audioOnly', flag('startAudioOnly'));
  put('prejoin', flag('prejoinConfig.enabled', 'prejoinPageEnabled'));
  put('subject', words(get('subject'), 255) ?? words(get('localSubject'), 255));
  put('hideSubject', flag('hideConferenceSubject'));
  put('hideSelf', flag('disableSelfView'));
  put('language', language(get('defaultLanguage')));
  const buttons = get('toolbarButtons');
  if (Array.isArray(buttons)) options.toolbarButtons = buttons.slice(0, 100).filter((b): b is string => typeof b === 'string' && b.length <= 100);
  const told = get('buttonsWithNotifyClick');
  if (Array.isArray(told)) {
    options.notifyClick = told.slice(0, 100).flatMap((b: unknown) => {
      const key = typeof b === 'string' ? b : own(b, 'key');
      return typeof key === 'string' && key.length <= 100 ? [{ key, preventExecution: typeof b === 'string' || own(b, 'preventExecution') === true }] : [];
    });
  }
  return options;
}

/** The same address without what only we should know. */
export function withoutSecrets(url: URL): string {
  const clean = (part: string) =>
    part
      .slice(1)
      .split('&')
      .filter((piece) => !SECRETS.has(piece.split('=')[0]!.toLowerCase()))
      .join('&');
  const query = clean(url.search);
  const hash = clean(url.hash);
  return `${url.pathname}${query && `?${query}`}${hash && `#${hash}`}`;
}

/** The address of a picture that may be shown: nothing that runs, nothing that stays unencrypted on the way. */
export function picture(value: unknown): string | undefined {
  if (typeof value !== 'string' || value.length > 64 * 1024) return undefined;
  if (/^data:image\/(png|jpeg|gif|webp|avif);base64,[\w+/=]+$/.test(value)) return value;
  return value.length <= 2048 && URL.canParse(value) && new URL(value).protocol === 'https:' ? value : undefined;
}

function language(value: unknown): string | undefined {
  return typeof value === 'string' && LANGUAGE.test(value) ? value : undefined;
}
