// SPDX-License-Identifier: Apache-2.0

// Two native clients, LiveKit's Rust stack as its Swift, Android and Node libraries carry it, meet on the SFU, and one meets a browser.
// Prints one line of JSON for each case.
//
// The native library is 0.12.75, newer than rtc-node 1.1.0 asks for (`overrides` in package.json). 0.12.73 can lock itself up when
// everything is made anew with one connection: it hands a track over while it still works on the first answer, takes the end of that work
// for the answer to its second offer, and then waits in set_remote_description for a lock that it holds (livekit/rust-sdks#1252).
import { AudioFrame, AudioSource, AudioStream, dispose, LocalAudioTrack, LocalVideoTrack, Room, RoomEvent, TrackKind, TrackPublishOptions, TrackSource, VideoBufferType, VideoCodec, VideoFrame, VideoSource, VideoStream } from '@livekit/rtc-node';
import { SimulateScenarioKind } from '@livekit/rtc-ffi-bindings';
import { checkAlone, failed } from '../../web/e2e/cases.mjs';

const base = process.argv[2];
const patience = Number(process.env.PATIENCE ?? 90_000);

// until asks again and again: frames and data that came are counted, and the count tells nobody.
async function until(what, f) {
  const end = Date.now() + patience;
  while (Date.now() < end) {
    const last = await f();
    if (last) return last;
    await new Promise((go) => setTimeout(go, 50));
  }
  throw new Error(`waited too long for ${what}`);
}

const token = async (identity, room) => (await fetch(`${base}/token?identity=${identity}&room=${room}`)).text();

/** Somebody with the native library: what it has told, and counters of what arrives. */
class Native {
  constructor(identity) {
    this.identity = identity;
    this.room = new Room();
    this.seen = [];
    this.frames = 0;
    this.width = 0;
    this.loud = 0; // blocks of sound that are no silence
    this.timers = [];
    const note = (what, detail) => this.seen.push({ what, ...detail });
    this.room
      .on(RoomEvent.TrackSubscribed, (track, pub, p) => {
        note('subscribed', { kind: track.kind, from: p.identity, encryption: pub.encryptionType });
        void (track.kind === TrackKind.KIND_VIDEO ? this.watch(track) : this.listen(track));
      })
      .on(RoomEvent.TrackUnsubscribed, (track, pub, p) => note('unsubscribed', { kind: track.kind, from: p.identity }))
      .on(RoomEvent.TrackMuted, (pub, p) => note('muted', { from: p.identity }))
      .on(RoomEvent.TrackUnmuted, (pub, p) => note('unmuted', { from: p.identity }))
      .on(RoomEvent.DataReceived, (data, p) => note('data', { text: Buffer.from(data).toString(), from: p?.identity }))
      .on(RoomEvent.ActiveSpeakersChanged, (list) => note('speakers', { who: list.map((p) => p.identity) }))
      .on(RoomEvent.ParticipantDisconnected, (p) => note('left', { who: p.identity }))
      .on(RoomEvent.Reconnecting, () => note('reconnecting'))
      .on(RoomEvent.Reconnected, () => note('reconnected'))
      .on(RoomEvent.Disconnected, (reason) => note('disconnected', { reason }));
  }

  async join(room, options) {
    const from = Date.now();
    await this.room.connect(base.replace('http', 'ws'), await token(this.identity, room), { autoSubscribe: true, dynacast: true, ...options });
    this.took = Date.now() - from;
    return this;
  }

  heard(what, test = () => true) {
    return until(`${this.identity} to hear "${what}", has ${JSON.stringify(this.seen)}`, () => this.seen.some((e) => e.what === what && test(e)));
  }

  async watch(track) {
    for await (const { frame } of new VideoStream(track)) {
      this.frames++;
      this.width = frame.width;
    }
  }

  async listen(track) {
    for await (const frame of new AudioStream(track, 48_000, 1)) {
      if (frame.data.some((s) => Math.abs(s) > 1000)) this.loud++;
    }
  }

  /** Publishes a hum and a moving picture. */
  async publish({ simulcast = true, codec = VideoCodec.VP8 } = {}) {
    const audio = new AudioSource(48_000, 1);
    const microphone = LocalAudioTrack.createAudioTrack('microphone', audio);
    this.microphone = await this.room.localParticipant.publishTrack(microphone, new TrackPublishOptions({ source: TrackSource.SOURCE_MICROPHONE }));
    let n = 0;
    this.timers.push(setInterval(() => {
      const data = new Int16Array(960).map((_, i) => 9000 * Math.sin((2 * Math.PI * 300 * (n * 960 + i)) / 48_000));
      n++;
      if (audio.queuedDuration < 200) void audio.captureFrame(new AudioFrame(data, 48_000, 1, 960)).catch(() => {});
    }, 20));
    const [width, height] = [960, 540];
    const video = new VideoSource(width, height);
    const camera = LocalVideoTrack.createVideoTrack('camera', video);
    this.camera = await this.room.localParticipant.publishTrack(camera, new TrackPublishOptions({ source: TrackSource.SOURCE_CAMERA, simulcast, videoCodec: codec }));
    let f = 0;
    this.timers.push(setInterval(() => {
      const data = new Uint8Array((width * height * 3) / 2).fill(128);
      data.fill((f * 7) % 256, 0, (width * height) / 2);
      f++;
      video.captureFrame(new VideoFrame(data, width, height, VideoBufferType.I420));
    }, 66));
  }

  /** Waits until pictures and sound have come in, counted from now. */
  async perceives() {
    const [frames, loud] = [this.frames, this.loud];
    await until(`${this.identity} to see and hear: ${JSON.stringify(this.seen)}`, () => this.frames > frames + 5 && this.loud > loud + 5);
    return { frames: this.frames - frames, loud: this.loud - loud, width: this.width };
  }

  async leave() {
    this.timers.forEach(clearInterval);
    await this.room.disconnect();
  }
}

const secret = new TextEncoder().encode('a key for everybody in this room');
for (const [name, options] of [
  ['two connections', { singlePeerConnection: false }],
  ['one connection', { singlePeerConnection: true }],
  ['encrypted', { singlePeerConnection: true, encryption: { keyProviderOptions: { sharedKey: secret } } }],
]) {
  const room = name.replace(/ /g, '-');
  const [a, b] = [new Native('swift'), new Native('android')];
  await checkAlone(`${name}: publish and subscribe`, async () => {
    await a.join(room, options);
    await a.publish();
    await b.join(room, options);
    const first = await b.perceives();
    await b.publish();
    const back = await a.perceives();
    return { first, back, joined: [a.took, b.took], encryption: b.seen.find((e) => e.what === 'subscribed').encryption };
  });
  if (!a.room.isConnected || !b.room.isConnected) continue;
  await checkAlone(`${name}: speakers`, () => b.heard('speakers', (e) => e.who.includes('swift')));
  await checkAlone(`${name}: data`, async () => {
    for (const reliable of [true, false]) {
      // A lossy channel may lose; it is asked until it does not.
      await until(`data, reliable: ${reliable}`, async () => {
        await a.room.localParticipant.publishData(Buffer.from(`hello ${reliable}`), { reliable });
        await new Promise((go) => setTimeout(go, 200));
        return b.seen.some((e) => e.what === 'data' && e.text === `hello ${reliable}` && e.from === 'swift');
      });
    }
  });
  // With two connections the Rust stack (1.1.0) tells of a stream in a section once and never again (rtc_session.rs, dispatched_streams).
  if (options.singlePeerConnection) await checkAlone(`${name}: unsubscribe and subscribe`, async () => {
    const theirs = [...b.room.remoteParticipants.get('swift').trackPublications.values()];
    for (const p of theirs) p.setSubscribed(false);
    await b.heard('unsubscribed');
    for (const p of theirs) p.setSubscribed(true);
    return b.perceives();
  });
  for (const [what, kind] of [
    ['the signalling breaks', SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT],
    ['everything anew', SimulateScenarioKind.SIMULATE_FULL_RECONNECT],
  ]) {
    for (const who of [a, b]) {
      await checkAlone(`${name}: ${what}, ${who === a ? 'at the sender' : 'at the listener'}`, async () => {
        who.seen.length = 0;
        await who.room.simulateScenario(kind);
        await who.heard('reconnected');
        return [await b.perceives(), await a.perceives()];
      });
    }
  }
  await checkAlone(`${name}: leave`, async () => {
    await b.leave();
    await a.heard('left', (e) => e.who === 'android');
    await a.leave();
  });
}
await dispose();
process.exit(failed ? 1 : 0);
