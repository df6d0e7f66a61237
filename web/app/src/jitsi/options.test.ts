// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { hostOf, optionsOf, picture, withoutSecrets } from './options.ts';
import { Params } from './params.ts';

const at = (rest: string) => new URL(`https://meet.example/daily${rest}`);

describe('options in an address', () => {
  it('are read as Jitsi writes them', () => {
    const hash = [
      'jitsi_meet_external_api_id=0',
      `jwt=${encodeURIComponent('"aaa.bbb.ccc"')}`,
      'config.startWithAudioMuted=true',
      `config.prejoinConfig=${encodeURIComponent('{"enabled":false}')}`,
      `config.toolbarButtons=${encodeURIComponent('["microphone","hangup"]')}`,
      `config.buttonsWithNotifyClick=${encodeURIComponent('["camera",{"key":"hangup","preventExecution":false}]')}`,
      'config.subject=%22Weekly%22',
      'userInfo.displayName=%22Al%20%C3%9F%22',
      'userInfo.email=%22al%40example.org%22',
      'devices.videoInput=%22Front%22',
    ].join('&');
    expect(optionsOf(at(`?lang=de#${hash}`))).toEqual({
      jwt: 'aaa.bbb.ccc',
      language: 'de',
      startMuted: { audio: true, video: false },
      prejoin: false,
      toolbarButtons: ['microphone', 'hangup'],
      notifyClick: [
        { key: 'camera', preventExecution: true },
        { key: 'hangup', preventExecution: false },
      ],
      subject: 'Weekly',
      displayName: 'Al ß',
      email: 'al@example.org',
      devices: { audioInput: undefined, audioOutput: undefined, videoInput: 'Front' },
    });
  });

  it('are read as people write them by hand', () => {
    expect(optionsOf(at('#config.prejoinConfig.enabled=false&config.startWithVideoMuted=true&userInfo.displayName=Al'))).toEqual({
      prejoin: false,
      startMuted: { audio: false, video: true },
      displayName: 'Al',
    });
    expect(optionsOf(at('#userInfo.displayName=%E2%80%9CAl%E2%80%9D')).displayName).toBe('Al');
  });

  it('of the wrong kind or too long are left out', () => {
    for (const rest of [
      '#config.startWithAudioMuted=7',
      '#config.prejoinConfig={}',
      '#config.toolbarButtons=%22all%22',
      '#userInfo.displayName={}',
      '#userInfo.displayName=%E0%A4%A',
      '#jwt=%22not%20a%20token%22',
      '?lang=javascript:alert(1)',
      '#userInfo.avatarURL=%22javascript:alert(1)%22',
      '#=1&&&config.=2',
      `#userInfo.displayName=%22${'a'.repeat(300_000)}%22`,
    ]) {
      expect(optionsOf(at(rest)), rest.slice(0, 80)).toEqual({});
    }
    expect(optionsOf(at('#userInfo.displayName=%22a%5Cn%5Cu0000b%22')).displayName).toBe('a  b');
    expect(optionsOf(at(`#userInfo.displayName=%22${'a'.repeat(1000)}%22`)).displayName).toHaveLength(100);
  });

  it('pollute no prototype and find nothing that every object has', () => {
    const before = Object.getOwnPropertyNames(Object.prototype);
    const hash = [
      '__proto__.polluted=true',
      'constructor.prototype.polluted=true',
      'config.__proto__.startWithAudioMuted=true',
      `config=${encodeURIComponent('{"__proto__":{"startWithAudioMuted":true},"constructor":{"prototype":{"polluted":true}}}')}`,
      `config.prejoinConfig=${encodeURIComponent('{"__proto__":{"enabled":false}}')}`,
    ].join('&');
    expect(optionsOf(at(`#${hash}`))).toEqual({});
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    expect(({} as Record<string, unknown>).startWithAudioMuted).toBeUndefined();
    expect(Object.getOwnPropertyNames(Object.prototype)).toEqual(before);
    const params = new Params('#a=1', true);
    for (const name of ['constructor', 'toString', '__proto__', 'a.constructor', 'a.toString']) expect(params.get(name)).toBeUndefined();
  });

  it('lose their secrets and keep the rest', () => {
    expect(withoutSecrets(at('?jwt=a.b.c&lang=de#jitsi_meet_external_api_id=0&jwt=%22a.b.c%22&config.x=1'))).toBe('/daily?lang=de#jitsi_meet_external_api_id=0&config.x=1');
    expect(withoutSecrets(at('?JWT=a.b.c'))).toBe('/daily');
    expect(withoutSecrets(at('#key=abc'))).toBe('/daily#key=abc');
  });

  it('tell who the page around is, if there is one', () => {
    expect(hostOf(at('#jitsi_meet_external_api_id=0'), true)).toBe('jitsi');
    expect(hostOf(at('#jitsi_meet_external_api_id=0'), false)).toBeUndefined();
    expect(hostOf(at('?widgetId=w&parentUrl=https://e.example'), true)).toBe('widget');
    expect(hostOf(at('#jitsi_meet_external_api_id=-1'), true)).toBeUndefined();
    expect(hostOf(at(''), true)).toBeUndefined();
  });
});

it('only pictures that cannot run or leak are shown', () => {
  expect(picture('https://example.org/a.png')).toBe('https://example.org/a.png');
  expect(picture('data:image/png;base64,iVBORw0KGgo=')).toBeDefined();
  for (const bad of ['http://example.org/a.png', 'javascript:alert(1)', 'data:text/html,<script>', 'data:image/svg+xml;base64,PHN2Zz4=', 'data:image/png,<script>', '', 7, null, `https://e.example/${'a'.repeat(3000)}`]) {
    expect(picture(bad), String(bad).slice(0, 50)).toBeUndefined();
  }
});
