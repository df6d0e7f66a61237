// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { groupCallUrl, type GroupCallPlace } from './url.ts';

const place: GroupCallPlace = {
  at: 'https://call.example/v1/',
  widgetId: 'w',
  roomId: '!r+&#/=ü:test',
  userId: '@ann:test',
  deviceId: 'DEV',
  baseUrl: 'https://test',
  encrypted: true,
  running: false,
  theme: 'dark',
  lang: 'en-GB',
};

describe('the address of a group call', () => {
  it('says everything in the fragment, which no server sees', () => {
    const url = new URL(groupCallUrl(place, 'https://test/#/room/x'));
    expect(url.origin + url.pathname + url.search).toBe('https://call.example/v1/index.html');
    const said = new URLSearchParams(url.hash.slice(url.hash.indexOf('?')));
    expect(said.get('roomId')).toBe(place.roomId);
    expect(said.get('parentUrl')).toBe('https://test/');
    expect(said.get('perParticipantE2EE')).toBe('true');
    expect(said.get('intent')).toBe('start_call');
  });

  it('joins what runs, and encrypts in encrypted rooms only', () => {
    const said = groupCallUrl({ ...place, running: true, encrypted: false });
    expect(said).toContain('intent=join_existing');
    expect(said).toContain('perParticipantE2EE=false');
  });
});
