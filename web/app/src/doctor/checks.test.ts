// SPDX-License-Identifier: Apache-2.0
import { describe as group, expect, it } from 'vitest';
import { clock, describe, network, way, wellKnownLeads, type Finding } from './checks.ts';
import { summary } from './DoctorPage.tsx';
import { refusal } from './Devices.tsx';

group('the doctor', () => {
  it('names the ways of TURN URIs', () => {
    expect(describe('turn:call.example.org:3478?transport=udp')).toBe('over UDP, port 3478');
    expect(describe('turn:call.example.org?transport=tcp')).toBe('over TCP, port 3478');
    expect(describe('turns:[2001:db8::1]:443?transport=tcp')).toBe('over TLS, port 443');
    expect(describe('turns:call.example.org?transport=tcp')).toBe('over TLS, port 5349');
  });

  it('tells clocks apart from a minute on', () => {
    expect(clock(59_000).verdict).toBe('good');
    expect(clock(300_000)).toMatchObject({ verdict: 'warning', text: expect.stringContaining('300 seconds ahead of') });
    expect(clock(-300_000).text).toContain('behind');
  });

  it('finds a stale well-known file', () => {
    expect(wellKnownLeads('https://a.example/', 'https://a.example').verdict).toBe('good');
    expect(wellKnownLeads('https://old.example', 'https://a.example')).toMatchObject({ verdict: 'warning', text: expect.stringContaining('old.example') });
    expect(wellKnownLeads(undefined, 'https://a.example').verdict).toBe('warning');
  });

  it('forgives blocked UDP where another way is open', () => {
    const udp = 'turn:x:3478?transport=udp';
    const tls = 'turns:x:443?transport=tcp';
    expect(way(udp, { failed: 'unreachable' }).verdict).toBe('warning');
    expect(way(tls, { failed: 'unreachable' }).verdict).toBe('broken');
    expect(way(tls, { failed: 'refused', code: 486 }).text).toContain('486');
    expect(network([{ uri: udp, trip: { failed: 'unreachable' } }, { uri: tls, trip: { took: 20 } }], []).verdict).toBe('warning');
    expect(network([{ uri: udp, trip: { failed: 'unreachable' } }], []).verdict).toBe('broken');
    expect(network([{ uri: udp, trip: { took: 3 } }], [{ local: '10.0.0.2:1', seen: '203.0.113.9:2' }]).text).toContain('translator');
    expect(
      network([{ uri: udp, trip: { took: 3 } }], [
        { local: '10.0.0.2:1', seen: '203.0.113.9:2' },
        { local: '10.0.0.2:1', seen: '203.0.113.9:3' },
      ]).text,
    ).toContain('symmetric');
  });

  it('sums up what it found', () => {
    const finding = (check: string, verdict: Finding['verdict']): Finding => ({ check, verdict, title: '', text: '' });
    expect(summary([finding('server', 'good'), finding('network', 'good')])).toBe('Calls work from here.');
    expect(summary([finding('server', 'broken')])).toBe('Calls will not work from here.');
    expect(summary([finding('relay x', 'broken'), finding('network', 'good')])).toContain('One thing is broken');
    expect(summary([finding('network', 'warning')])).toContain('with limits');
  });

  it('says what to do when devices do not open', () => {
    expect(refusal('NotAllowedError')).toContain('lock symbol');
    expect(refusal('Odd')).toContain('Odd');
  });
});
