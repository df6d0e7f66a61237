// SPDX-License-Identifier: Apache-2.0

// Two pages with livekit-client and fake cameras meet on the SFU. Prints one line of JSON for each case.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { checkAlone, failed } from '../../web/e2e/cases.mjs';
import { hum } from '../../web/e2e/sound.mjs';

const base = process.argv[2];
const patience = 90_000;

const home = await mkdtemp(join(tmpdir(), 'trunkboard-sfu-'));
const voice = join(home, 'hum.wav');
await writeFile(voice, hum());

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream', `--use-file-for-fake-audio-capture=${voice}`, '--autoplay-policy=no-user-gesture-required', '--disable-features=WebRtcHideLocalIpsWithMdns'],
});

/** until repeats f until it gives something true. */
async function until(what, f) {
  const end = Date.now() + patience;
  let last;
  while (Date.now() < end) {
    last = await f();
    if (last) return last;
    await new Promise((go) => setTimeout(go, 100));
  }
  throw new Error(`waited too long for ${what}`);
}

async function enter(identity, room, options, before) {
  const page = await (await browser.newContext()).newPage();
  page.on('pageerror', (e) => console.log(`${identity}: ${e}`));
  if (process.env.VERBOSE) page.on('console', (m) => console.log(`${identity}: ${m.text()}`));
  await page.goto(`${base}/page`);
  if (before) await page.evaluate(before);
  const token = await (await fetch(`${base}/token?identity=${identity}&room=${room}`)).text();
  const from = Date.now();
  await page.evaluate(([url, t, o]) => window.join(url, t, o), [base.replace('http', 'ws'), token, options ?? {}]);
  return { page, identity, took: Date.now() - from };
}

const heard = (c, what, test = () => true) => until(`${c.identity} to hear "${what}"`, async () => (await c.page.evaluate(() => window.seen)).some((e) => e.what === what && test(e)));
const forget = (c) => c.page.evaluate(() => { window.seen.length = 0; });
const plays = async (c, what) => {
  const before = await c.page.evaluate(() => window.picture().frames);
  return until(what, async () => {
    const p = await c.page.evaluate(() => window.picture());
    return p.width > 0 && p.frames > before + 10 ? p : null;
  });
};
const sounds = async (c, from) => {
  const first = (await c.page.evaluate((i) => window.audio(i), from)) ?? { packets: 0, energy: 0 };
  return until(`${c.identity} to hear ${from}'s sound`, async () => {
    const a = await c.page.evaluate((i) => window.audio(i), from);
    return a && a.packets > first.packets + 30 && a.energy > first.energy ? a : null;
  });
};

for (const single of [true, false]) {
  const name = single ? 'one connection' : 'two connections';
  const options = { singlePeerConnection: single };
  const room = single ? 'one' : 'two';
  let a, b;
  await checkAlone(`${name}: publish and subscribe`, async () => {
    a = await enter('alice', room, options);
    await a.page.evaluate(() => window.publish());
    await a.page.evaluate(() => window.greet());
    b = await enter('bob', room, options);
    await heard(b, 'subscribed', (e) => e.kind === 'video' && e.from === 'alice');
    await heard(b, 'subscribed', (e) => e.kind === 'audio' && e.from === 'alice');
    const picture = await plays(b, 'a moving picture');
    return { picture, sound: await sounds(b, 'alice'), cipher: await a.page.evaluate(() => window.cipher()), joined: [a.took, b.took] };
  });
  if (!b) continue;
  await checkAlone(`${name}: the other way, later`, async () => {
    await b.page.evaluate(() => window.publish());
    await heard(a, 'subscribed', (e) => e.kind === 'video' && e.from === 'bob');
    return { picture: await plays(a, 'a moving picture'), sound: await sounds(a, 'bob') };
  });
  await checkAlone(`${name}: layers change as asked`, async () => {
    await b.page.evaluate(() => window.quality('alice', 'HIGH'));
    const high = await until('a large picture', async () => {
      const p = await b.page.evaluate(() => window.picture());
      return p.width >= 960 ? p : null;
    });
    await b.page.evaluate(() => window.quality('alice', 'LOW'));
    const low = await until('a small picture', async () => {
      const p = await b.page.evaluate(() => window.picture());
      return p.width < 640 ? p : null;
    });
    await plays(b, 'a moving picture');
    const off = await until('the large layer to be switched off', async () => {
      const l = await a.page.evaluate(() => window.layers());
      return l.f && !l.f.active && l.q.active ? l : null;
    });
    await b.page.evaluate(() => window.quality('alice', 'HIGH'));
    await until('a large picture again', async () => (await b.page.evaluate(() => window.picture())).width >= 960);
    return { high, low, off };
  });
  await checkAlone(`${name}: mute`, async () => {
    await a.page.evaluate(() => window.room.localParticipant.setMicrophoneEnabled(false));
    await heard(b, 'muted', (e) => e.kind === 'audio' && e.from === 'alice');
    await a.page.evaluate(() => window.room.localParticipant.setMicrophoneEnabled(true));
    await heard(b, 'unmuted', (e) => e.kind === 'audio' && e.from === 'alice');
    await sounds(b, 'alice');
  });
  await checkAlone(`${name}: speakers`, () => heard(b, 'speakers', (e) => e.who.includes('alice')));
  await checkAlone(`${name}: data`, async () => {
    for (const reliable of [true, false]) {
      const text = `hello ${reliable}`;
      await a.page.evaluate(([t, r]) => window.room.localParticipant.publishData(new TextEncoder().encode(t), { reliable: r }), [text, reliable]);
      await heard(b, 'data', (e) => e.text === text && e.from === 'alice');
    }
  });
  await checkAlone(`${name}: methods and streams of text`, async () => {
    const answer = await a.page.evaluate(() => window.room.localParticipant.performRpc({ destinationIdentity: 'bob', method: 'reverse', payload: 'olleh', responseTimeout: 60_000 }));
    if (answer !== 'hello for alice') throw new Error(`bob answers ${answer}`);
    const long = 'a long text '.repeat(5000); // several chunks
    await a.page.evaluate((t) => window.room.localParticipant.sendText(t, { topic: 'chat', destinationIdentities: ['bob'] }), long);
    await heard(b, 'text', (e) => e.text === long && e.from === 'alice');
  });
  await checkAlone(`${name}: unsubscribe and subscribe`, async () => {
    await forget(b);
    await b.page.evaluate(() => window.subscribe('alice', 'camera', false));
    await heard(b, 'unsubscribed', (e) => e.kind === 'video');
    await b.page.evaluate(() => window.subscribe('alice', 'camera', true));
    await heard(b, 'subscribed', (e) => e.kind === 'video');
    return plays(b, 'a moving picture');
  });
  await checkAlone(`${name}: resume after the signalling broke`, async () => {
    await forget(b);
    await b.page.evaluate(() => window.room.simulateScenario('signal-reconnect'));
    await heard(b, 'signalReconnecting');
    await heard(b, 'reconnected');
    return plays(b, 'a moving picture');
  });
  await checkAlone(`${name}: what was said before one could hear, and during resumes, arrives once and in order`, async () => {
    const said = a.page.evaluate(() => window.count());
    for (const who of [a, b]) {
      await forget(who);
      await who.page.evaluate(() => window.room.simulateScenario('signal-reconnect'));
      await heard(who, 'reconnected');
      const before = await b.page.evaluate(() => window.numbers.length);
      await until('more numbers', async () => (await b.page.evaluate(() => window.numbers.length)) > before + 20);
    }
    await a.page.evaluate(() => { window.counting = false; });
    const n = await said;
    const numbers = await until('all numbers', async () => {
      const all = await b.page.evaluate(() => window.numbers);
      return all.at(-1) === n - 1 ? all : null;
    });
    if (numbers.length !== n || numbers.some((x, i) => x !== i)) throw new Error(`of ${n} numbers bob hears ${JSON.stringify(numbers)}`);
    if (JSON.stringify(await b.page.evaluate(() => window.welcomes)) !== '["welcome bob"]') throw new Error('bob was not greeted, or too often');
    return { n };
  });
  await checkAlone(`${name}: a resume that fails, and a new beginning`, async () => {
    await forget(b);
    await b.page.evaluate(() => window.room.simulateScenario('resume-reconnect'));
    await heard(b, 'reconnected');
    await plays(b, 'a moving picture');
    return sounds(b, 'alice');
  });
  await checkAlone(`${name}: full reconnect`, async () => {
    await forget(b);
    await b.page.evaluate(() => window.room.simulateScenario('full-reconnect'));
    await heard(b, 'reconnected');
    await plays(b, 'a moving picture');
    await plays(a, "the other's moving picture");
  });
  for (const codec of single ? ['vp9', 'av1', 'h264'] : []) {
    await checkAlone(`${name}: ${codec}, layers change as asked`, async () => {
      await forget(b);
      if (!(await a.page.evaluate((c) => window.publishWith(c), codec))) return `this browser does not encode ${codec}`;
      await heard(b, 'subscribed', (e) => e.kind === 'video' && e.from === 'alice');
      const state = async () => ({ picture: await b.page.evaluate(() => window.picture()), a: await a.page.evaluate(() => window.codecs('bob')), b: await b.page.evaluate(() => window.codecs('alice')) });
      await plays(b, `a moving picture in ${codec}`).catch(async (e) => {
        throw new Error(`${e} ${JSON.stringify(await state())}`);
      });
      if ((await state()).b.received?.mime?.toLowerCase() !== `video/${codec}`) throw new Error(`received ${JSON.stringify(await state())}`);
      if (codec === 'h264') return state();
      await b.page.evaluate(() => window.quality('alice', 'HIGH'));
      const high = await until('a large picture', async () => {
        const s = await state();
        return s.picture.width >= 1000 ? s : null;
      });
      await b.page.evaluate(() => window.quality('alice', 'LOW'));
      const low = await until('a small picture', async () => {
        const s = await state();
        return s.picture.width < 500 ? s : null;
      });
      await plays(b, 'a small moving picture');
      await b.page.evaluate(() => window.quality('alice', 'HIGH'));
      await until('a large picture again', async () => (await b.page.evaluate(() => window.picture())).width >= 1000);
      await plays(b, 'a large moving picture');
      return { high, low };
    });
  }
  await checkAlone(`${name}: leave`, async () => {
    await b.page.evaluate(() => window.room.disconnect());
    await heard(a, 'left', (e) => e.who === 'bob');
  });
  await a?.page.close();
  await b?.page.close();
}
for (const single of [true, false]) {
  await checkAlone(`${single ? 'one connection' : 'two connections'}: redundant sound`, async () => {
    const room = `red-${single}`;
    const options = { singlePeerConnection: single };
    const people = [await enter('alice', room, options), await enter('bob', room, options), await enter('carol', room, options, 'refuseRed()')];
    const [alice, bob, carol] = people;
    await alice.page.evaluate(() => window.publish());
    // Browsers name the codec within; that a sound comes twice is seen by what its packets weigh.
    const weight = async (who, from) => {
      await heard(who, 'subscribed', (e) => e.kind === 'audio' && e.from === from);
      await sounds(who, from);
      const state = () => who.page.evaluate((f) => window.sounds(f), from);
      const first = await state();
      const then = await until('more sound', async () => {
        const now = await state();
        return now.received.packets > first.received.packets + 50 ? now : null;
      });
      return { told: then.told, weight: Math.round((then.received.bytes - first.received.bytes) / (then.received.packets - first.received.packets)), energy: then.received.energy };
    };
    const out = await until('redundant sound', async () => {
      const w = { bob: await weight(bob, 'alice'), carol: await weight(carol, 'alice') };
      return w.bob.weight > 1.6 * w.carol.weight && w.carol.told === 'audio/red' ? w : null;
    });
    // One who does not send it, to one who would take it.
    await carol.page.evaluate(() => window.publish());
    out.plain = await weight(bob, 'carol');
    if (out.plain.told !== 'audio/opus' || out.plain.weight > 1.3 * out.carol.weight) throw new Error(`plain sound ${JSON.stringify(out)}`);
    // One who wants none.
    await alice.page.evaluate(() => window.room.localParticipant.unpublishTrack(window.room.localParticipant.getTrackPublication('microphone').track));
    await forget(bob);
    await alice.page.evaluate(() => window.publish({ red: false }));
    out.without = await weight(bob, 'alice');
    if (out.without.told !== 'audio/opus' || out.without.weight > 1.3 * out.carol.weight) throw new Error(`without redundancy ${JSON.stringify(out)}`);
    for (const p of people) await p.page.close();
    return out;
  });
}
// At the same time: they wait most of the time.
await Promise.all([true, false].map((single) => {
  const [codec, mime, policy, wish] = single ? ['vp9', 'video/VP9', 'PREFER_REGRESSION', 'h264'] : ['av1', 'video/AV1', 'REGRESSION', 'vp8'];
  return checkAlone(`${single ? 'one connection' : 'two connections'}: ${wish} as second codec for who does not take ${codec}`, async () => {
    const room = `second-${single}`;
    const options = { singlePeerConnection: single };
    const [alice, bob] = [await enter('alice', room, options), await enter('bob', room, options)];
    const gets = async (who, codec) => {
      const received = async () => (await who.page.evaluate(() => window.codecs('alice'))).received?.mime;
      await until(`${who.identity} to receive ${codec}`, async () => (await received()) === codec).catch(async (e) => {
        throw new Error(`${e} ${await received()}, alice sends ${JSON.stringify(await alice.page.evaluate(() => window.sending()))}`);
      });
      await plays(who, `a moving picture in ${codec}`);
    };
    const sends = (what, test) => until(what, async () => {
      const s = await alice.page.evaluate(() => window.sending());
      return test(s) ? s : null;
    });
    // Where this browser does not encode it, VP8, which it has always.
    const backup = await alice.page.evaluate((w) => (RTCRtpSender.getCapabilities('video').codecs.some((c) => c.mimeType.toLowerCase() === `video/${w}`) ? w : 'vp8'), wish);
    const other = `video/${backup.toUpperCase()}`;
    await alice.page.evaluate(([c, b, p]) => window.publishWith(c, { backupCodec: { codec: b }, backupCodecPolicy: LivekitClient.BackupCodecPolicy[p] }), [codec, backup, policy]);
    await heard(bob, 'subscribed');
    await gets(bob, mime);
    await forget(bob);
    const carol = await enter('carol', room, options, `refuse('VP9', 'AV1', '${backup === 'vp8' ? 'H264' : 'VP8'}')`);
    await heard(carol, 'subscribed');
    await gets(carol, other);
    await gets(bob, other); // too, so that alice encodes once
    const second = await sends('the second codec only', (s) => !s[mime]?.on && s[other]?.on);
    await plays(bob, 'a moving picture');
    await carol.page.evaluate(() => window.room.disconnect());
    await gets(bob, mime);
    const first = await sends('the first codec only', (s) => s[mime]?.on && !s[other]?.on);
    await plays(bob, 'a moving picture');
    if ((await bob.page.evaluate(() => window.seen)).some((e) => e.what === 'unsubscribed' && e.kind === 'video')) throw new Error('bob saw the track end');
    for (const p of [alice, bob, carol]) await p.page.close();
    return { other, second, first };
  });
}));
for (const [name, options] of [['in the clear', {}], ['encrypted end to end', { key: 'a key that all share' }]]) {
  await checkAlone(`temporal layers, ${name}`, async () => {
    const room = `temporal-${name.length}`;
    const [alice, bob] = [await enter('alice', room, options), await enter('bob', room, options)];
    await alice.page.evaluate(() => window.publish());
    await alice.page.evaluate(() => window.temporal());
    await heard(bob, 'subscribed', (e) => e.kind === 'video');
    await bob.page.evaluate(() => window.quality('alice', 'HIGH'));
    await until('a large picture', async () => (await bob.page.evaluate(() => window.picture())).width >= 960);
    // The share of the frames that alice sends in the large layer, while she sends some.
    const share = async () => {
      const sent = async () => (await alice.page.evaluate(() => window.layers())).f.frames;
      const from = [await sent(), await bob.page.evaluate(() => window.frames('alice'))];
      let to = from;
      await until('frames', async () => {
        to = [await sent(), await bob.page.evaluate(() => window.frames('alice'))];
        return to[0] > from[0] + 40;
      });
      return { share: (to[1].received - from[1].received) / (to[0] - from[0]), decoded: to[1].decoded - from[1].decoded, keys: to[1].keys - from[1].keys, ...to[1] };
    };
    const out = {};
    out.all = await until('all frames', async () => {
      const s = await share();
      return s.share > 0.85 ? s : null;
    });
    await bob.page.evaluate(() => window.fps('alice', 1));
    out.few = await until('fewer frames', async () => {
      const s = await share();
      return s.share < 0.6 && s.decoded > 0 ? s : null;
    });
    if (out.few.width < 960) throw new Error(`the picture has become smaller ${JSON.stringify(out)}`);
    await plays(bob, 'fewer frames');
    await bob.page.evaluate(() => window.fps('alice', 60));
    out.again = await until('all frames again', async () => {
      const s = await share();
      return s.share > 0.85 && s.decoded > 0 ? s : null;
    });
    await plays(bob, 'all frames again');
    await bob.page.close();
    await alice.page.close();
    return out;
  });
}
await browser.close();
await rm(home, { recursive: true });
process.exit(failed ? 1 : 0);
