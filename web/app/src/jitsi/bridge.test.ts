// SPDX-License-Identifier: Apache-2.0
// Our script and our bridge, face to face over a wire of two windows.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Bridge } from './bridge.ts';
import { commands, unsupported } from './commands.ts';
import { JitsiMeetExternalAPI } from './external/api.ts';
import { Meeting, person } from './meeting.fixture.ts';
import { COMMANDS, EVENTS } from './names.ts';
import { Params } from './params.ts';

const PAGE = 'https://product.example';
const MEET = 'https://meet.example';

interface Sent {
  target: string;
  data: string;
}

/** A window that hands what is posted to it to the listeners of the test's window, as if from the other one. */
function end(from: () => Window, origin: string, sent: Sent[]): Window {
  return {
    postMessage(data: string, target: string) {
      sent.push({ target, data });
      queueMicrotask(() => window.dispatchEvent(new MessageEvent('message', { data, origin, source: from() })));
    },
  } as unknown as Window;
}

vi.setConfig({ testTimeout: 60_000 });

let toFrame: Sent[];
let toPage: Sent[];
let frame: Window;
let page: Window;
let id = 0;
let api: InstanceType<typeof JitsiMeetExternalAPI>;
let bridge: Bridge | undefined;
let meeting: Meeting;
let heard: [string, Record<string, unknown>][];

/** Waits until something that was said is true. */
const until = (f: () => unknown) => vi.waitFor(() => expect(f()).toBeTruthy(), { timeout: 30_000, interval: 5 });
const last = (name: string) => heard.findLast(([n]) => n === name)?.[1];
const did = (...call: unknown[]) => meeting.calls.some((c) => JSON.stringify(c) === JSON.stringify(call));

beforeEach(() => {
  [toFrame, toPage, heard] = [[], [], []];
  frame = end(() => page, PAGE, toFrame);
  page = end(() => frame, MEET, toPage);
  vi.spyOn(window, 'parent', 'get').mockReturnValue(page);
  vi.spyOn(HTMLIFrameElement.prototype, 'contentWindow', 'get').mockReturnValue(frame);
  vi.spyOn(console, 'warn').mockImplementation(() => {});
  vi.spyOn(console, 'error').mockImplementation(() => {});
  meeting = new Meeting();
  api = new JitsiMeetExternalAPI('meet.example', { roomName: 'daily', width: 700, height: '80%' });
  for (const name of Object.values(EVENTS)) api.on(name, ((data: Record<string, unknown>) => heard.push([name, data])) as never);
});

afterEach(() => {
  bridge?.close();
  bridge = undefined;
  api.dispose();
  id++;
  vi.restoreAllMocks();
});

/** Starts the page in the frame. */
function open(hash = '') {
  bridge = new Bridge(meeting, `jitsi_meet_external_api_${id}`, new Params(`#${hash}`, true));
}

async function inMeeting() {
  meeting.snapshot.people = [person('ben', { name: 'Ben', userId: '@ben:hs' })];
  open();
  await meeting.join();
  await until(() => last('videoConferenceJoined'));
}

describe('the script', () => {
  it('puts a frame into the page whose address carries the options', () => {
    const { src, style, allow } = api.getIFrame();
    expect(src).toBe(`https://meet.example/daily#jitsi_meet_external_api_id=${id}`);
    expect([style.width, style.height]).toEqual(['700px', '80%']);
    expect(allow).toContain('display-capture');
  });

  it('is told that the page is there, and of what happened before', async () => {
    await inMeeting();
    const names = heard.map(([name]) => name);
    expect(names.slice(0, 3)).toEqual(['browserSupport', 'ready', 'prejoinScreenLoaded']);
    expect(last('videoConferenceJoined')).toMatchObject({ roomName: 'daily', id: 'me', displayName: 'Ann', breakoutRoom: false, visitor: false });
    await until(() => last('participantJoined'));
    expect(last('participantJoined')).toMatchObject({ id: 'ben', displayName: 'Ben', userContext: { id: '@ben:hs' } });
    expect(heard.filter(([name]) => name === 'participantRoleChanged').map(([, d]) => d)).toEqual([{ id: 'me', role: 'moderator' }]);
    expect(api.getNumberOfParticipants()).toBe(2);
    expect(api.getParticipantsInfo().map((p) => p.displayName)).toEqual(['Ann', 'Ben']);
  });

  it('gets an error at once for what nobody knows, and an answer for all else', async () => {
    await inMeeting();
    await expect(api.invite([{ type: 'phone' }])).rejects.toMatchObject({ name: 'RequestError' });
    await expect(api.getConnectionStats()).rejects.toMatchObject({ message: 'there is no request "connection-stats" here' });
    expect(await api.isAudioMuted()).toBe(false);
    api.executeCommand('toggleAudio');
    await until(() => last('audioMuteStatusChanged'));
    expect(await api.isAudioMuted()).toBe(true);
    expect(await api.isVideoMuted()).toBe(false);
    expect(await api.isSharingScreen()).toBe(false);
    expect(await api.isModerationOn('video')).toBe(false);
    expect(await api.isDeviceListAvailable()).toBe(true);
    expect(await api.isAudioAvailable()).toBe(true);
    expect(await api.getCurrentDevices()).toMatchObject({ audioInput: { label: 'Microphone' }, videoInput: { deviceId: 'front' } });
    expect(await api.getAvailableDevices()).toMatchObject({ videoInput: [{ label: 'Front' }, { label: 'Back' }], audioOutput: [] });
    expect(await api.setVideoInputDevice('Back')).toBe(true);
    expect(did('useDevice', 'videoinput', 'back')).toBe(true);
    await expect(api.setVideoInputDevice('Nothing')).rejects.toMatchObject({ message: 'there is no such device' });
    expect(await api.getRoomsInfo()).toMatchObject({ rooms: [{ isMainRoom: true, participants: [{ id: 'me', role: 'moderator' }, { id: 'ben' }] }] });
    expect(await api.listBreakoutRooms()).toEqual({});
  });

  it('cannot be made to say the name of something that every object has', async () => {
    await inMeeting();
    for (const name of ['constructor', 'toString', '__proto__', 'hasOwnProperty']) {
      await expect(Reflect.apply(api['ask' as keyof typeof api] as (n: string) => Promise<unknown>, api, [name])).rejects.toMatchObject({ name: 'RequestError' });
      api.executeCommand(name);
    }
    expect(meeting.calls).toEqual([]);
  });

  it('leaves nothing behind', () => {
    const { dispose } = JitsiMeetExternalAPI.prototype;
    const frameElement = api.getIFrame();
    dispose.call(api);
    expect(frameElement.isConnected).toBe(false);
    expect(api.eventNames()).toEqual([]);
  });
});

describe('commands', () => {
  // Each row: what a program does, what the meeting is asked to do or what the program hears of it.
  const rows: [name: string, args: unknown[], effect: () => unknown][] = [
    ['displayName', ['Al'], () => did('setName', 'Al') && last('displayNameChange')?.displayname === 'Al'],
    ['avatarUrl', ['https://e.example/a.png'], () => did('setAvatar', 'https://e.example/a.png')],
    ['email', ['al@example.org'], () => meeting.options.email === 'al@example.org' && last('emailChange')?.email === 'al@example.org'],
    ['subject', ['Weekly'], () => last('subjectChange')?.subject === 'Weekly'],
    ['password', ['secret'], () => did('givePassword', 'secret')],
    ['toggleAudio', [], () => last('audioMuteStatusChanged')?.muted === true],
    ['toggleVideo', [], () => last('videoMuteStatusChanged')?.muted === true],
    ['toggleCamera', [], () => did('useDevice', 'videoinput', 'back')],
    ['toggleShareScreen', [], () => last('screenSharingStatusChanged')?.on === true && (last('contentSharingParticipantsChanged')?.data as { sharingParticipantIds: string[] }).sharingParticipantIds[0] === 'me'],
    ['toggleRaiseHand', [], () => last('raiseHandUpdated')?.handRaised === 1000],
    ['toggleTileView', [], () => last('tileViewChanged')?.enabled === false],
    ['setTileView', [true], () => last('tileViewChanged')?.enabled === true],
    ['toggleFilmStrip', [], () => last('filmstripDisplayChanged')?.visible === false && document.documentElement.dataset.filmstrip === 'hidden'],
    ['toggleChat', [], () => last('chatUpdated')?.isOpen === true],
    ['sendChatMessage', ['hello', 'ben'], () => did('say', 'hello', 'ben') && last('outgoingMessage')?.privateMessage === true],
    ['toggleLobby', [true], () => did('setLobby', true)],
    ['kickParticipant', ['ben'], () => did('kick', 'ben')],
    ['grantModerator', ['ben'], () => did('promote', 'ben')],
    ['muteEveryone', ['desktop'], () => did('muteAll', 'screen')],
    ['muteEveryone', [], () => did('muteAll', 'audio')],
    ['muteRemoteParticipant', ['ben', 'video'], () => did('mute', 'ben', 'video')],
    ['muteRemoteParticipant', ['me'], () => did('setMuted', 'audio', true)],
    ['askToUnmute', ['ben'], () => did('askUnmute', 'ben', 'audio')],
    ['approveVideo', ['ben'], () => did('askUnmute', 'ben', 'video')],
    ['rejectParticipant', ['ben', 'audio'], () => did('mute', 'ben', 'audio')],
    ['toggleModeration', [true, 'video'], () => did('mayUnmute', 'video', false)],
    ['pinParticipant', ['ben'], () => did('pin', 'ben')],
    ['setLargeVideoParticipant', ['ben'], () => did('pin', 'ben') && meeting.snapshot.view === 'speaker'],
    ['setVideoQuality', [360], () => did('setQuality', 360) && last('videoQualityChanged')?.videoQuality === 360],
    ['setLowBandwidthMode', [true], () => meeting.options.audioOnly === true && last('lowBandwidthModeChanged')?.enabled === true],
    ['setParticipantVolume', ['ben', 0.5], () => did('setVolume', 'ben', 0.5)],
    ['setBlurredBackground', ['blur'], () => did('setBlur', true)],
    ['initiatePrivateChat', ['ben'], () => last('chatUpdated')?.isOpen === true],
    ['overwriteConfig', [{ startWithAudioMuted: true, subject: 'S', resolution: 720 }], () => meeting.options.startMuted?.audio === true && did('setSubject', 'S') && did('setQuality', 720)],
    ['startRecording', [{ mode: 'file' }], () => last('recordingStatusChanged')?.error === 'unavailable'],
    ['stopRecording', ['file'], () => last('recordingStatusChanged')?.on === false],
    ['endConference', [], () => did('end')],
    ['hangup', [], () => did('hangUp') && last('videoConferenceLeft')?.roomName === 'daily' && last('readyToClose')],
  ];

  it.each(rows)('%s does what it says', async (name, args, effect) => {
    delete document.documentElement.dataset.filmstrip;
    await inMeeting();
    api.executeCommand(name, ...args);
    await until(effect);
  });

  it('answerKnockingParticipant lets in who knocks', async () => {
    await inMeeting();
    meeting.happen({ type: 'knock', userId: '@cem:hs', name: 'Cem' }, { knocks: [{ userId: '@cem:hs', name: 'Cem' }] });
    await until(() => last('knockingParticipant'));
    expect(last('knockingParticipant')).toEqual({ participant: { id: '@cem:hs', name: 'Cem' } });
    api.executeCommand('answerKnockingParticipant', '@cem:hs', true);
    await until(() => did('answer', '@cem:hs', true));
  });

  it('executeCommands hands lists over as arguments', async () => {
    await inMeeting();
    api.executeCommands({ displayName: ['Al'], toggleAudio: [] });
    await until(() => did('setName', 'Al') && did('setMuted', 'audio', true));
  });

  it('with bad arguments do nothing', async () => {
    open('config.apiLogLevels=["warn","error"]');
    meeting.snapshot.people = [person('ben')];
    await meeting.join();
    await until(() => last('videoConferenceJoined'));
    const bad: [string, ...unknown[]][] = [
      ['displayName'],
      ['displayName', { toString: 'x' }],
      ['avatarUrl', 'javascript:alert(1)'],
      ['password', 7],
      ['kickParticipant', 'nobody'],
      ['kickParticipant'],
      ['muteEveryone', 'smell'],
      ['sendChatMessage', ''],
      ['sendChatMessage', 'x'.repeat(20_000)],
      ['setParticipantVolume', 'ben', 7],
      ['setVideoQuality', '360'],
      ['answerKnockingParticipant', '@x:y', true],
      ['overwriteConfig', 'all'],
      ['addBreakoutRoom', 'b'],
    ];
    for (const [name, ...args] of bad) api.executeCommand(name, ...args);
    await until(() => heard.filter(([name]) => name === 'log').length === bad.length);
    expect(meeting.calls).toEqual([]);
    expect((last('log')?.args as string[])[0]).toBe('add-breakout-room is not supported: there is no breakout rooms');
  });

  it('that the meeting refuses are logged', async () => {
    await inMeeting();
    meeting.refusal = 'Only hosts may do that.';
    api.executeCommand('kickParticipant', 'ben');
    await until(() => vi.mocked(console.error).mock.calls.flat().some((w) => String(w).includes('Only hosts may do that.')));
  });

  it('of Jitsi are all known: done, or said not to be there', () => {
    const wires = Object.values(COMMANDS);
    expect(wires.filter((w) => !(w in commands) && !(w in unsupported))).toEqual([]);
    expect(Object.keys(commands).filter((w) => w in unsupported)).toEqual([]);
    expect([...Object.keys(commands), ...Object.keys(unsupported)].filter((w) => !wires.includes(w))).toEqual([]);
  });
});

describe('events', () => {
  it('are told in Jitsi’s words', async () => {
    await inMeeting();
    meeting.happen({ type: 'came', person: person('cem', { name: 'Cem' }) }, { people: [...meeting.snapshot.people, person('cem', { name: 'Cem' })] });
    meeting.happen({ type: 'came', person: person('cem', { name: 'Cem' }) });
    meeting.happen({ type: 'muted', kind: 'audio', muted: true, id: 'ben' });
    meeting.happen({ type: 'speaker', id: 'ben' });
    meeting.happen({ type: 'message', from: 'ben', name: 'Ben', text: '<b>hi</b>', at: 1000, own: false, private: false });
    meeting.happen({ type: 'button', key: 'hangup', prevented: true });
    meeting.happen({ type: 'role', id: 'ben', host: true });
    meeting.happen({ type: 'error', code: 'media', text: 'No camera.', fatal: false });
    meeting.happen({ type: 'kicked', id: 'ben', by: 'me' });
    meeting.happen({ type: 'went', person: person('ben') });
    meeting.happen({ type: 'went', person: person('ben') });
    meeting.happen({ type: 'subject', subject: 'S' }, { mayUnmute: { audio: false, video: true } });
    await until(() => last('moderationStatusChanged'));
    expect(heard.filter(([name]) => name === 'participantJoined').map(([, d]) => d.id)).toEqual(['ben', 'cem']);
    expect(heard.filter(([name]) => name === 'participantLeft').map(([, d]) => d.id)).toEqual(['ben']);
    expect(last('participantMuted')).toEqual({ id: 'ben', isMuted: true, mediaType: 'audio' });
    expect(last('dominantSpeakerChanged')).toEqual({ id: 'ben' });
    expect(last('incomingMessage')).toEqual({ from: 'ben', nick: 'Ben', privateMessage: false, message: '<b>hi</b>', stamp: '1970-01-01T00:00:01.000Z' });
    expect(last('toolbarButtonClicked')).toEqual({ key: 'hangup', preventExecution: true });
    expect(last('participantRoleChanged')).toEqual({ id: 'ben', role: 'moderator' });
    expect(last('errorOccurred')).toMatchObject({ message: 'No camera.', isFatal: false, error: { name: 'media', message: 'No camera.', isFatal: false } });
    expect(last('participantKickedOut')).toEqual({ kicked: { id: 'ben', name: 'Ben', local: false }, kicker: { id: 'me', name: 'Ann', local: true } });
    expect(last('moderationStatusChanged')).toEqual({ mediaType: 'audio', enabled: true });
  });

  it('ask for the password once, and say so when somebody has to let us in', async () => {
    open();
    meeting.happen({ type: 'phase', phase: 'password' }, { phase: 'password' });
    meeting.happen({ type: 'phase', phase: 'joining' }, { phase: 'joining' });
    meeting.happen({ type: 'phase', phase: 'password' }, { phase: 'password' });
    meeting.happen({ type: 'phase', phase: 'lobby' }, { phase: 'lobby' });
    await until(() => last('errorOccurred'));
    expect(heard.filter(([name]) => name === 'passwordRequired')).toHaveLength(1);
    expect(last('errorOccurred')).toMatchObject({ isFatal: false });
  });
});

describe('the wire', () => {
  it('goes to the origin of the page around only, and to nobody before it has spoken', async () => {
    await inMeeting();
    await api.isAudioMuted();
    expect(new Set(toPage.map((s) => s.target))).toEqual(new Set([PAGE]));
    expect(new Set(toFrame.map((s) => s.target))).toEqual(new Set([MEET]));
    api.dispose();
    bridge!.close();
    toPage.length = 0;
    bridge = new Bridge(new Meeting(), 'jitsi_meet_external_api_9999', new Params('', true));
    await new Promise((go) => setTimeout(go, 200));
    expect(toPage).toEqual([]);
  });

  it('hears nobody but the window around it, its origin and its scope', async () => {
    await inMeeting();
    const say = (data: unknown, origin: string, source: Window | null) =>
      window.dispatchEvent(new MessageEvent('message', { data: typeof data === 'string' ? data : JSON.stringify(data), origin, source }));
    const hangup = (scope: string) => ({ postis: true, scope, method: 'message', params: { type: 'event', data: { name: 'video-hangup', data: [] } } });
    const stranger = end(() => page, 'https://evil.example', []);
    const scope = `jitsi_meet_external_api_${id}`;
    say(hangup(scope), PAGE, stranger);
    say(hangup(scope), 'https://evil.example', page);
    say(hangup(scope), 'null', page);
    say(hangup(scope), PAGE, null);
    say(hangup('jitsi_meet_external_api_77'), PAGE, page);
    say({ ...hangup(scope), postis: 'yes' }, PAGE, page);
    say('{"postis":true', PAGE, page);
    say('null', PAGE, page);
    say(JSON.stringify(hangup(scope)) + ' '.repeat(1_100_000), PAGE, page);
    say({ postis: true, scope, method: '__ready__', params: 'x' }, 'https://evil.example', page);
    say({ postis: true, scope, method: 'message', params: { type: 'event', data: { name: ['video-hangup'], data: 7 } } }, PAGE, page);
    say({ postis: true, scope, method: 'message', params: { type: 'request', id: {}, data: null } }, PAGE, page);
    await api.isAudioMuted();
    expect(meeting.calls).toEqual([]);
    say(hangup(scope), PAGE, page);
    await until(() => did('hangUp'));
  });

  it('refuses more questions than it can bear', async () => {
    await inMeeting();
    meeting.devices = () => new Promise(() => {});
    const all = Array.from({ length: 101 }, () => api.getAvailableDevices());
    all.slice(0, 100).forEach((p) => p.catch(() => {}));
    await expect(all[100]).rejects.toMatchObject({ name: 'TooManyRequests' });
  });

  it('ends with the bridge', async () => {
    await inMeeting();
    bridge!.close();
    expect(meeting.subscribers).toBe(0);
    api.executeCommand('hangup');
    await new Promise((go) => setTimeout(go, 20));
    expect(meeting.calls).toEqual([]);
  });
});
