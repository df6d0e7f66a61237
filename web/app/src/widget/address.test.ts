// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { runTemplate } from 'matrix-widget-api';
import { base32, meetingOf, widgetOf } from './address.ts';
import { parentOf, said } from './widget.ts';

it('base32 is the one of RFC 4648, without padding', () => {
  const vectors = { '': '', f: 'my', fo: 'mzxq', foo: 'mzxw6', foob: 'mzxw6yq', fooba: 'mzxw6ytb', foobar: 'mzxw6ytboi', 'ü': 'yo6a' };
  expect(Object.keys(vectors).map(base32)).toEqual(Object.values(vectors));
});

for (const kind of ['custom', 'jitsi'] as const) {
  it(`a client fills in the address of a widget of kind ${kind}, and the page reads it`, () => {
    const { stateKey, content } = widgetOf(kind, 'https://meet.example', '!room:hs', '@ann:hs');
    expect(stateKey).toBe(content.id);
    const url = new URL(
      runTemplate(
        content.url,
        { ...content, id: content.id },
        {
          currentUserId: '@ann:hs',
          userDisplayName: 'Ann & <b>Co</b> $matrix_room_id',
          userHttpAvatarUrl: 'https://hs.example/a.png',
          widgetRoomId: '!room:hs',
          clientTheme: 'dark',
          clientLanguage: 'de',
        },
      ),
    );
    expect(url.pathname).toBe(`/meet/${meetingOf('!room:hs')}`);
    expect(url.search).toBe(`?widgetId=${content.id}`);
    expect(said(url)).toEqual({
      roomId: '!room:hs',
      displayName: 'Ann & <b>Co</b> $matrix_room_id',
      avatarUrl: 'https://hs.example/a.png',
      theme: 'dark',
      language: 'de',
    });
    if (kind === 'jitsi') expect(content.data).toMatchObject({ domain: 'meet.example', conferenceId: meetingOf('!room:hs'), auth: 'openidtoken-jwt' });
  });
}

it('variables that a client does not know are nobody’s name', () => {
  const url = new URL(widgetOf('custom', 'https://meet.example', '!room:hs', '@ann:hs').content.url);
  expect(said(url)).toEqual({});
});

it('a parent is an origin of the web', () => {
  const at = (query: string) => parentOf(new URL(`https://meet.example/meet/x?${query}`));
  expect(at('widgetId=w&parentUrl=https%3A%2F%2Felement.example%2F%23%2Froom')).toEqual({ widgetId: 'w', origin: 'https://element.example' });
  for (const bad of ['widgetId=w', 'parentUrl=https://e.example', 'widgetId=w&parentUrl=javascript:alert(1)', 'widgetId=w&parentUrl=data:text/html,x', 'widgetId=w&parentUrl=null', `widgetId=${'w'.repeat(300)}&parentUrl=https://e.example`]) {
    expect(at(bad), bad.slice(0, 60)).toBeUndefined();
  }
});
