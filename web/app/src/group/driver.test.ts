// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it, vi } from 'vitest';
import type { MatrixClient } from 'matrix-js-sdk';
import type { MediaLoader } from '../matrix/media.ts';
import { CallDriver } from './driver.ts';

const room = '!call:test';

function driver(client: object = {}): CallDriver {
  return new CallDriver({ getSafeUserId: () => '@ann:test', getDeviceId: () => 'DEV', ...client } as unknown as MatrixClient, {} as MediaLoader, room);
}

describe('what a group call may do', () => {
  it('is its own membership and what calls exchange, nothing else', async () => {
    const asked = new Set([
      'org.matrix.msc2762.send.state_event:org.matrix.msc3401.call.member#_@ann:test_DEV_m.call',
      'org.matrix.msc2762.send.state_event:org.matrix.msc3401.call.member#_@ben:test_DEV_m.call',
      'org.matrix.msc2762.send.state_event:m.room.power_levels',
      'org.matrix.msc2762.receive.event:m.room.message',
      'org.matrix.msc2762.timeline:*',
      `org.matrix.msc2762.timeline:${room}`,
      'org.matrix.msc3819.send.to_device:io.element.call.encryption_keys',
      'org.matrix.msc3819.receive.to_device:m.room_key',
      'org.matrix.msc4515.rtc_transports',
    ]);
    expect([...(await driver().validateCapabilities(asked))].sort()).toEqual([
      'org.matrix.msc2762.send.state_event:org.matrix.msc3401.call.member#_@ann:test_DEV_m.call',
      `org.matrix.msc2762.timeline:${room}`,
      'org.matrix.msc3819.send.to_device:io.element.call.encryption_keys',
      'org.matrix.msc4515.rtc_transports',
    ]);
  });

  it('stays in its room', async () => {
    const sendEvent = vi.fn();
    const d = driver({ sendEvent });
    await expect(d.sendEvent('m.reaction', {}, null, '!other:test')).rejects.toThrow('another room');
    await expect(d.readRoomState('!other:test', 'm.room.member', undefined)).rejects.toThrow('another room');
    expect(() => d.getRtcLivekitToken({ server_name: 'test', url: 'u', slot_id: 's', room_id: '!other:test', member: { id: 'm' } })).toThrow('another room');
    expect(sendEvent).not.toHaveBeenCalled();
  });

  it('sends one batch for each content, encrypted for every device', async () => {
    const encryptToDeviceMessages = vi.fn(async (eventType: string) => ({ eventType, batch: [] }));
    const queueToDevice = vi.fn();
    const d = driver({ queueToDevice, getCrypto: () => ({ getUserDeviceInfo: vi.fn(), encryptToDeviceMessages }) });
    await d.sendToDevice('io.element.call.encryption_keys', true, { '@ben:test': { A: { k: 1 }, B: { k: 1 } }, '@cem:test': { C: { k: 2 } } });
    expect(encryptToDeviceMessages.mock.calls.map((c: unknown[]) => [c[1], c[2]])).toEqual([
      [[{ userId: '@ben:test', deviceId: 'A' }, { userId: '@ben:test', deviceId: 'B' }], { k: 1 }],
      [[{ userId: '@cem:test', deviceId: 'C' }], { k: 2 }],
    ]);
    expect(queueToDevice).toHaveBeenCalledTimes(2);
  });
});
