// SPDX-License-Identifier: Apache-2.0
import { createRoot } from 'react-dom/client';
import { loadSession } from '../auth/session.ts';
import { TokenKeeper } from '../auth/tokens.ts';
import { hostOf, optionsOf as optionsOfLink, withoutSecrets } from '../jitsi/options.ts';
import { keepEarly } from '../widget/early.ts';
import { MeetApi } from './api.ts';
import type { MeetingControl } from './control.ts';
import { Meeting } from './meeting.ts';
import { loadRoom, MeetPage, startLanguage } from './MeetPage.tsx';
import { keyOf, optionsOf, remembered } from './options.ts';
import { wordsFor } from './words.ts';
import '@fontsource-variable/inter/wght.css';
import '../styles/tokens.css';
import '../styles/base.css';
// In this order: what comes later counts where both say something.
import '../styles/meet/page.css';
import '../styles/meet/stage.css';
import '../styles/meet/bar.css';
import '../styles/meet/panels.css';
import '../styles/meet/dialogs.css';
import '../styles/meet/phone.css';

const loadMedia = () => import('./media.ts');

/** Those who drive the page from outside: the Jitsi bridge, and the Matrix widget. Each module has `attach`. */
const drivers = import.meta.glob<{ attach: (meeting: MeetingControl) => void | Promise<void> }>(['../jitsi/bridge.ts', '../widget/widget.ts']);

function session() {
  try {
    return loadSession();
  } catch {
    return null; // Storage is denied in this frame.
  }
}

function tabMemory(): Pick<Storage, 'getItem' | 'setItem' | 'removeItem'> {
  try {
    return sessionStorage;
  } catch {
    return { getItem: () => null, setItem: () => {}, removeItem: () => {} };
  }
}

async function open(): Promise<void> {
  const url = new URL(location.href);
  if (hostOf(url) === 'widget') keepEarly();
  // A plain link brings nobody into a meeting by itself, whatever Jitsi's settings in it say: camera and microphone wait for a click.
  const options = { ...optionsOf(location), ...optionsOfLink(url), ...(window === window.parent ? { prejoin: true } : {}) };
  // Who looks at the address bar, or at the history, finds no token there.
  history.replaceState(history.state, '', withoutSecrets(url));
  let language = startLanguage(options.language);
  let key = keyOf(url.hash);
  const stored = session();
  const keeper = stored && new TokenKeeper(stored);
  const apis = new Map<string, MeetApi>();
  const meeting = new Meeting(options, {
    api: (name) => {
      let api = apis.get(name);
      if (!api) apis.set(name, (api = new MeetApi(name, keeper?.fetch, () => keeper?.accessToken)));
      return api;
    },
    media: loadMedia,
    words: () => wordsFor(language),
    memory: tabMemory(),
    key: {
      get: () => key,
      set: (fresh) => {
        key = fresh || undefined;
        history.replaceState(history.state, '', `${location.pathname}${location.search}${fresh ? `#key=${fresh}` : ''}`);
      },
    },
    signedIn: keeper ? { userId: stored.userId, fetch: keeper.fetch as typeof fetch } : undefined,
    relayOnly: remembered('trunkboard.iceTransportPolicy') === 'relay',
    small: remembered('trunkboard.meet.small') === '1',
  });
  const driver = { jitsi: drivers['../jitsi/bridge.ts'], widget: drivers['../widget/widget.ts'], nobody: undefined }[hostOf(url) ?? 'nobody'];
  if (driver) await (await driver()).attach(meeting);
  language = startLanguage(meeting.snapshot.options.language);
  if (remembered('trunkboard.test')) Object.assign(window, { __meeting: meeting });
  createRoot(document.getElementById('root')!).render(<MeetPage meeting={meeting} first={language} onLanguage={(chosen) => (language = chosen)} />);
  if (meeting.wasIn) void meeting.resume();
  else if (!meeting.snapshot.options.prejoin) void meeting.join();
  // After the first paint, what joining will need.
  requestAnimationFrame(() =>
    setTimeout(() => {
      void loadMedia().catch(() => {});
      void loadRoom().catch(() => {});
    }),
  );
}

void open();
