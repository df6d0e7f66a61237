// SPDX-License-Identifier: Apache-2.0
// The meeting itself: pictures, toolbar, panels and dialogs.
import { useCallback, useEffect, useRef, useState } from 'react';
import { toggleFullscreen } from '../ui/fullscreen.ts';
import { Icon } from '../ui/Icon.tsx';
import { ChatPanel } from './ChatPanel.tsx';
import { clock, type DialogName, InviteDialog, QualityDialog, SecurityDialog, SettingsDialog, ShortcutsDialog, StatisticsDialog } from './dialogs.tsx';
import { remembered } from './options.ts';
import { PeoplePanel } from './PeoplePanel.tsx';
import { pipPossible, Small, SmallWindow, usePip, useTiny } from './pip.tsx';
import { RecordsDialog } from './RecordsDialog.tsx';
import { isTalkKey, shortcutOf, SHORTCUTS_KEY } from './shortcuts.ts';
import { Stage } from './Stage.tsx';
import { byRank } from './state.ts';
import { Toolbar } from './Toolbar.tsx';
import { useMeet, useMeeting, useWords } from './use.ts';

export default function InMeeting() {
  const meeting = useMeeting();
  const w = useWords();
  const chatOpen = useMeet((s) => s.chatOpen);
  const reconnecting = useMeet((s) => s.phase === 'reconnecting');
  const alone = useMeet((s) => s.people.length === 1);
  const embedded = useMeet((s) => s.options.embedded);
  const call = useMeet((s) => s.options.call === true);
  const silent = useMeet((s) => s.silent);
  const [people, setPeople] = useState(false);
  const [dialog, setDialog] = useState<DialogName>();
  const [to, setTo] = useState('');
  const [keys, setKeys] = useState(() => remembered(SHORTCUTS_KEY) !== 'off');
  const pip = usePip();
  const tiny = useTiny();
  const closeDialog = () => setDialog(undefined);

  const openPeople = useCallback(
    (open: boolean) => {
      if (open) meeting.openChat(false);
      setPeople(open);
    },
    [meeting],
  );
  useEffect(() => {
    if (chatOpen) setPeople(false);
  }, [chatOpen]);
  const closePanel = () => {
    document.querySelector<HTMLElement>(`[data-testid="bar-${chatOpen ? 'chat' : 'people'}"]`)?.focus();
    if (chatOpen) meeting.openChat(false);
    else openPeople(false);
  };
  useKeys(keys, { people, openPeople, setDialog });
  useAwake();

  const banner = reconnecting && (
    <p className="meet-banner" role="alert" data-testid="meet-reconnecting">
      <span className="spinner" aria-hidden="true" /> {w.reconnecting}
    </p>
  );
  const phase = reconnecting ? 'reconnecting' : 'in';
  if (tiny) {
    return (
      <div className="meet is-tiny" data-testid="meet" data-phase={phase}>
        {banner}
        <Small />
      </div>
    );
  }
  return (
    <div className={`meet ${call ? 'in-client' : ''}`} data-testid="meet" data-phase={phase}>
      <Header />
      {banner}
      <main className="meet-middle">
        <Stage />
        {alone && (call || !embedded) && (
          <div className="meet-alone" data-testid="meet-alone">
            <p>
              <strong>{w.alone}</strong>
              {call ? w.aloneInCall : w.aloneText}
            </p>
            {!call && (
              <button type="button" className="button button-primary button-small" onClick={() => setDialog('invite')}>
                <Icon name="invite" size={16} /> {w.invite}
              </button>
            )}
          </div>
        )}
        {(chatOpen || people) && (
          <aside className="meet-panel" aria-label={chatOpen ? w.chat : w.people} data-testid="meet-panel" onKeyDown={(e) => e.key === 'Escape' && !e.defaultPrevented && closePanel()}>
            <header>
              <h2>{chatOpen ? w.chat : w.people}</h2>
              <button type="button" className="icon-button" aria-label={w.close} onClick={closePanel}>
                <Icon name="close" />
              </button>
            </header>
            {chatOpen ? (
              <ChatPanel to={to} setTo={setTo} />
            ) : (
              <PeoplePanel
                onInvite={() => setDialog('invite')}
                onWrite={(id) => {
                  setTo(id);
                  meeting.openChat(true);
                }}
              />
            )}
          </aside>
        )}
        <Reactions />
      </main>
      {silent && (
        <button type="button" className="button button-primary meet-sound" onClick={() => meeting.playSound()}>
          <Icon name="speaker" /> {w.clickForSound}
        </button>
      )}
      <Notices />
      <Knocks onOpen={() => openPeople(true)} />
      <Toolbar people={people} openPeople={openPeople} openDialog={setDialog} pip={pipPossible() ? pip : undefined} />
      {dialog === 'invite' && <InviteDialog onClose={closeDialog} />}
      {dialog === 'settings' && <SettingsDialog onClose={closeDialog} />}
      {dialog === 'security' && <SecurityDialog onClose={closeDialog} />}
      {dialog === 'records' && <RecordsDialog onClose={closeDialog} />}
      {dialog === 'statistics' && <StatisticsDialog onClose={closeDialog} />}
      {dialog === 'quality' && <QualityDialog onClose={closeDialog} />}
      {dialog === 'shortcuts' && <ShortcutsDialog onClose={closeDialog} on={keys} setOn={setKeys} />}
      {pip.window && <SmallWindow window={pip.window} onClose={pip.close} />}
    </div>
  );
}

function Header() {
  const w = useWords();
  const title = useMeet((s) => s.subject || s.name);
  const hidden = useMeet((s) => s.options.hideSubject === true);
  const started = useMeet((s) => s.started);
  const encrypted = useMeet((s) => s.e2ee === 'on');
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return (
    <header className="meet-head">
      <h1 className={hidden ? 'meet-hidden' : ''} data-testid="meet-title">
        {title}
      </h1>
      {encrypted && (
        <span className="meet-secure" data-testid="meet-encrypted" title={w.encrypted}>
          <Icon name="lock" size={15} /> <span>{w.encrypted}</span>
        </span>
      )}
      {started !== undefined && (
        <span className="meet-clock" role="timer" aria-label={w.duration} aria-live="off">
          {clock(Math.max(0, now - started))}
        </span>
      )}
    </header>
  );
}

function Notices() {
  const meeting = useMeeting();
  const w = useWords();
  const notices = useMeet((s) => s.notices);
  return (
    <div className="meet-notices" role="status" aria-live="polite">
      {notices.map((n) => (
        <div key={n.id} className={`meet-notice ${n.tone}`} data-testid="notice">
          {n.tone === 'problem' && <Icon name="warning" size={18} />}
          <span>{n.text}</span>
          {n.action && (
            <button
              type="button"
              className="button button-small button-primary"
              data-testid="notice-action"
              onClick={() => {
                n.action?.do();
                meeting.dismiss(n.id);
              }}
            >
              {n.action.label}
            </button>
          )}
          <button type="button" className="icon-button small" aria-label={w.dismiss} onClick={() => meeting.dismiss(n.id)}>
            <Icon name="close" size={15} />
          </button>
        </div>
      ))}
    </div>
  );
}

/** Who knocks is told where a host looks anyway. */
function Knocks({ onOpen }: { onOpen: () => void }) {
  const meeting = useMeeting();
  const w = useWords();
  const knocks = useMeet((s) => s.knocks);
  const first = knocks[0];
  if (!first) return null;
  return (
    <div className="meet-knocks" role="status" data-testid="knock-banner">
      <Icon name="door" size={22} />
      <span>{w.knocks(first.name)}</span>
      {knocks.length > 1 && (
        <button type="button" className="link" onClick={onOpen}>
          +{knocks.length - 1}
        </button>
      )}
      <button type="button" className="button button-small" onClick={() => meeting.tried(meeting.host.answer(first.userId, false))}>
        {w.deny}
      </button>
      <button type="button" className="button button-small button-primary" data-testid="knock-admit" onClick={() => meeting.tried(meeting.host.answer(first.userId, true))}>
        {w.admit}
      </button>
    </div>
  );
}

function Reactions() {
  const reactions = useMeet((s) => s.reactions);
  const people = useMeet((s) => s.people);
  return (
    <div className="meet-reactions" aria-live="off">
      {reactions.map((r) => (
        <span key={r.key} className={`meet-reaction lane-${r.key % 5}`} data-testid="reaction">
          <i aria-hidden="true">{r.emoji}</i>
          <bdi>{people.find((p) => p.id === r.id)?.name}</bdi>
        </span>
      ))}
    </div>
  );
}

interface Actions {
  people: boolean;
  openPeople: (open: boolean) => void;
  setDialog: (name: DialogName) => void;
}

function useKeys(on: boolean, actions: Actions): void {
  const meeting = useMeeting();
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    let held = false;
    const down = (e: KeyboardEvent) => {
      const { me, chatOpen, view, people } = meeting.snapshot;
      if (!me) return;
      // Help is always there: it says how to turn the keys on.
      const what = shortcutOf(e);
      if (!on && what !== 'help') return;
      if (isTalkKey(e)) {
        e.preventDefault();
        if (!held && me.muted.audio) {
          held = true;
          void meeting.setMuted('audio', false);
        }
        return;
      }
      if (!what) return;
      e.preventDefault();
      const act: Record<string, () => void> = {
        mic: () => void meeting.setMuted('audio', !me.muted.audio),
        camera: () => void meeting.setMuted('video', !me.muted.video),
        screen: () => void meeting.share(!me.sharing),
        chat: () => meeting.openChat(!chatOpen),
        people: () => latest.current.openPeople(!latest.current.people),
        hand: () => void meeting.raiseHand(!me.hand),
        view: () => meeting.setView(view === 'tile' ? 'speaker' : 'tile'),
        statistics: () => latest.current.setDialog('statistics'),
        invite: () => latest.current.setDialog('invite'),
        quality: () => latest.current.setDialog('quality'),
        help: () => latest.current.setDialog('shortcuts'),
        fullscreen: () => toggleFullscreen(),
      };
      if (typeof what === 'string') act[what]?.();
      else meeting.pin(what.pin === 0 ? undefined : [...people].sort(byRank)[what.pin - 1]?.id);
    };
    const up = (e: KeyboardEvent) => {
      if (e.key !== ' ' || !held) return;
      held = false;
      void meeting.setMuted('audio', true);
    };
    // Who leaves the window with the key down does not go on speaking.
    const away = () => up(new KeyboardEvent('keyup', { key: ' ' }));
    window.addEventListener('keydown', down);
    window.addEventListener('keyup', up);
    window.addEventListener('blur', away);
    return () => {
      window.removeEventListener('keydown', down);
      window.removeEventListener('keyup', up);
      window.removeEventListener('blur', away);
    };
  }, [meeting, on]);
}

/** A phone must not fall asleep while somebody listens. */
function useAwake(): void {
  useEffect(() => {
    let lock: WakeLockSentinel | undefined;
    let gone = false;
    const take = () => {
      if (document.visibilityState !== 'visible') return;
      void navigator.wakeLock?.request('screen').then(
        (l) => {
          if (gone) void l.release();
          else lock = l;
        },
        () => {},
      );
    };
    take();
    document.addEventListener('visibilitychange', take);
    return () => {
      gone = true;
      document.removeEventListener('visibilitychange', take);
      void lock?.release();
    };
  }, []);
}
