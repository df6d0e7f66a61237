// SPDX-License-Identifier: Apache-2.0
import { Component, lazy, type ReactNode, Suspense, useEffect, useMemo, useState } from 'react';
import { Ending, KeyDoor, Lobby, PasswordDoor, Start } from './Doors.tsx';
import type { Meeting } from './meeting.ts';
import { remember, remembered } from './options.ts';
import { PreJoin } from './PreJoin.tsx';
import { applyTheme } from './theme.ts';
import { MeetContext, useMeet, useWords } from './use.ts';
import { languageOf, wordsFor, type Language } from './words.ts';

/** What is needed only inside comes after the first paint. */
export const loadRoom = () => import('./InMeeting.tsx');
const InMeeting = lazy(loadRoom);

const LANGUAGE_KEY = 'trunkboard.meet.language';

/** The language to speak: what the link says, what was chosen before, what the browser prefers. */
export function startLanguage(asked: string | undefined): Language {
  return languageOf(asked, remembered(LANGUAGE_KEY) || undefined, ...navigator.languages);
}

export function MeetPage({ meeting, first, onLanguage }: { meeting: Meeting; first: Language; onLanguage: (language: Language) => void }) {
  const [language, set] = useState(first);
  const surround = useMemo(() => {
    const setLanguage = (chosen: Language) => {
      remember(LANGUAGE_KEY, chosen);
      onLanguage(chosen);
      set(chosen);
    };
    return { meeting, words: wordsFor(language), language, setLanguage };
  }, [meeting, language, onLanguage]);
  useEffect(() => {
    document.documentElement.lang = language;
  }, [language]);
  useEffect(() => meeting.subscribe((e) => e.type === 'phase' && e.phase === 'prejoin' && void loadRoom()), [meeting]);
  return (
    <MeetContext value={surround}>
      <Phases />
    </MeetContext>
  );
}

function Phases() {
  const w = useWords();
  const phase = useMeet((s) => s.phase);
  const name = useMeet((s) => s.name);
  const subject = useMeet((s) => s.subject);
  const roomId = useMeet((s) => s.options.roomId);
  const theme = useMeet((s) => s.options.theme);
  const needsKey = useMeet((s) => s.e2ee === 'key');
  const prejoin = useMeet((s) => s.options.prejoin);
  const wasIn = useMeet((s) => s.people.length > 0);
  useEffect(() => applyTheme(theme), [theme]);
  useEffect(() => {
    document.title = `${subject || name || w.meeting} – Trunkboard`;
  }, [subject, name, w]);
  if (phase === 'prejoin' && name === '' && !roomId) return <Start />;
  switch (phase) {
    case 'in':
      break;
    case 'reconnecting':
      if (wasIn) break;
      return <Waiting />;
    case 'password':
      return needsKey ? <KeyDoor /> : <PasswordDoor />;
    case 'lobby':
      return <Lobby />;
    case 'left':
    case 'kicked':
    case 'ended':
    case 'failed':
      return <Ending key={phase} />;
    case 'joining':
      return prejoin ? <PreJoin /> : <Waiting />;
    default:
      return <PreJoin />;
  }
  return (
    <Fallen fallback={<Broken />}>
      <Suspense fallback={<Waiting />}>
        <InMeeting />
      </Suspense>
    </Fallen>
  );
}

/** A mistake of ours in what is drawn must not leave an empty page: reloading brings one back into the meeting. */
class Fallen extends Component<{ children: ReactNode; fallback: ReactNode }, { fallen: boolean }> {
  override state = { fallen: false };

  static getDerivedStateFromError() {
    return { fallen: true };
  }

  override render() {
    return this.state.fallen ? this.props.fallback : this.props.children;
  }
}

function Broken() {
  const w = useWords();
  return (
    <main className="splash" data-testid="meet-broken">
      <h1 className="meet-hidden">{w.failedTitle}</h1>
      <p role="alert">{w.failedTitle}</p>
      <button type="button" className="button button-primary" onClick={() => location.reload()}>
        {w.again}
      </button>
    </main>
  );
}

function Waiting() {
  const w = useWords();
  return (
    <main className="splash" aria-busy="true">
      <h1 className="meet-hidden">{w.meeting}</h1>
      <img src="/icon.svg" width={56} height={56} alt="" />
      <p role="status">{w.joining}</p>
    </main>
  );
}
