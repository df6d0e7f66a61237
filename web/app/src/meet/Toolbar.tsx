// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef, useState } from 'react';
import { toggleFullscreen, useFullscreen } from '../ui/fullscreen.ts';
import { Icon, type IconName } from '../ui/Icon.tsx';
import type { DialogName } from './dialogs.tsx';
import { Menu, type MenuEntry } from './Menu.tsx';
import type { Pip } from './pip.tsx';
import { REACTIONS } from './roomState.ts';
import { useMeet, useMeeting, useShown, useWords } from './use.ts';

interface Props {
  people: boolean;
  openPeople: (open: boolean) => void;
  openDialog: (name: DialogName) => void;
  pip?: Pip;
}

/** The keys are those of Jitsi's toolbarButtons: an embedder may leave some out, or take their place. */
export function Toolbar({ people, openPeople, openDialog, pip }: Props) {
  const meeting = useMeeting();
  const w = useWords();
  const shown = useShown();
  const me = useMeet((s) => s.me);
  const view = useMeet((s) => s.view);
  const chatOpen = useMeet((s) => s.chatOpen);
  const unread = useMeet((s) => s.unread);
  const count = useMeet((s) => s.people.length);
  const embedded = useMeet((s) => s.options.embedded);
  const blur = useMeet((s) => s.blur);
  const audioOnly = useMeet((s) => s.audioOnly);
  const quality = useMeet((s) => s.quality);
  const full = useFullscreen();
  if (!me) return null;
  const press = (key: string, act: () => void) => () => meeting.button(key, act);

  const more: (MenuEntry & { key: string })[] = [
    { key: 'tileview', icon: view === 'tile' ? 'focus' : 'grid', label: view === 'tile' ? w.speakerView : w.tiles, testid: 'bar-view', do: () => meeting.setView(view === 'tile' ? 'speaker' : 'tile') },
    { key: 'fullscreen', icon: full ? 'shrink' : 'expand', label: full ? w.fullscreenLeave : w.fullscreen, do: () => toggleFullscreen() },
    { key: 'select-background', icon: 'sparkle', label: w.blur, checked: blur !== 'off', testid: 'bar-blur', do: () => void meeting.setBlur(blur === 'off') },
    { key: 'videoquality', icon: 'speaker', label: w.saver, checked: audioOnly, testid: 'bar-saver', do: () => meeting.setQuality(audioOnly ? quality || 720 : 0) },
    { key: 'security', icon: 'shield', label: w.security, testid: 'bar-security', do: () => openDialog('security') },
    { key: 'stats', icon: 'chart', label: w.statistics, testid: 'bar-statistics', do: () => openDialog('statistics') },
    { key: 'shortcuts', icon: 'keyboard', label: w.shortcuts, testid: 'bar-shortcuts', do: () => openDialog('shortcuts') },
    { key: 'settings', icon: 'settings', label: w.settings, testid: 'bar-settings', do: () => openDialog('settings') },
  ];
  if (pip) more.splice(2, 0, { key: 'pip', icon: 'pip', label: pip.open ? w.pipLeave : w.pip, testid: 'bar-pip', do: pip.toggle });
  if (me.host) more.splice(-2, 0, { key: 'records', icon: 'file', label: w.records, testid: 'bar-records', do: () => openDialog('records') });
  // On a phone these have no room beside the others.
  const narrow: (MenuEntry & { key: string })[] = [
    { key: 'participants-pane', icon: 'people', label: w.people, do: () => openPeople(true) },
    { key: 'raisehand', icon: 'hand', label: me.hand ? w.lower : w.raise, do: () => void meeting.raiseHand(!me.hand) },
  ];
  if (!embedded) narrow.push({ key: 'invite', icon: 'invite', label: w.invite, do: () => openDialog('invite') });
  const entries = (list: (MenuEntry & { key: string })[]) => list.filter((e) => shown(e.key) || e.key === 'pip').map((e) => ({ ...e, do: press(e.key, e.do) }));
  const canShare = typeof navigator.mediaDevices?.getDisplayMedia === 'function';

  return (
    <footer className="meet-bar" aria-label={w.toolbar} data-testid="toolbar">
      <div className="meet-bar-side">
        {!embedded && shown('invite') && <Round wide icon="invite" label={w.invite} onClick={press('invite', () => openDialog('invite'))} testid="bar-invite" />}
        {shown('security') && <Round wide icon="shield" label={w.security} onClick={press('security', () => openDialog('security'))} />}
      </div>
      <div className="meet-bar-middle">
        {shown('microphone') && <Round icon={me.muted.audio ? 'micOff' : 'mic'} off={me.muted.audio} pressed={me.muted.audio} label={me.muted.audio ? w.unmute : w.mute} hint="M" onClick={press('microphone', () => void meeting.setMuted('audio', !me.muted.audio))} testid="bar-mic" />}
        {shown('camera') && <Round icon={me.muted.video ? 'videoOff' : 'video'} off={me.muted.video} pressed={me.muted.video} label={me.muted.video ? w.cameraStart : w.cameraStop} hint="V" onClick={press('camera', () => void meeting.setMuted('video', !me.muted.video))} testid="bar-camera" />}
        {shown('desktop') && canShare && <Round wide icon="screen" on={me.sharing} pressed={me.sharing} label={me.sharing ? w.shareStop : w.share} hint="D" onClick={press('desktop', () => void meeting.share(!me.sharing))} testid="bar-share" />}
        {shown('reactions') && <Reactions />}
        {shown('raisehand') && <Round wide icon="hand" on={!!me.hand} pressed={!!me.hand} label={me.hand ? w.lower : w.raise} hint="R" onClick={press('raisehand', () => void meeting.raiseHand(!me.hand))} testid="bar-hand" />}
        {shown('chat') && (
          <Round narrow icon="chat" on={chatOpen} pressed={chatOpen} badge={unread} label={unread ? `${w.chat}, ${w.unread(unread)}` : w.chat} onClick={press('chat', () => meeting.openChat(!chatOpen))} />
        )}
        <span className="wide">
          <Menu label={w.more} className="meet-round" entries={entries(more)} testid="bar-more">
            <Icon name="more" size={22} />
          </Menu>
        </span>
        <span className="narrow">
          <Menu label={w.more} className="meet-round" entries={entries([...narrow, ...more])} testid="bar-more-narrow">
            <Icon name="more" size={22} />
          </Menu>
        </span>
        {shown('hangup') && <Leave host={me.host} press={press} />}
      </div>
      <div className="meet-bar-side end">
        {shown('participants-pane') && <Round wide icon="people" on={people} pressed={people} badge={count} quiet label={`${w.people}: ${count}`} hint="P" onClick={press('participants-pane', () => openPeople(!people))} testid="bar-people" />}
        {shown('chat') && <Round wide icon="chat" on={chatOpen} pressed={chatOpen} badge={unread} label={unread ? `${w.chat}, ${w.unread(unread)}` : w.chat} hint="C" onClick={press('chat', () => meeting.openChat(!chatOpen))} testid="bar-chat" />}
      </div>
    </footer>
  );
}

interface RoundProps {
  icon: IconName;
  label: string;
  hint?: string;
  onClick: () => void;
  testid?: string;
  off?: boolean;
  on?: boolean;
  pressed?: boolean;
  badge?: number;
  /** The badge is a number, no news. */
  quiet?: boolean;
  wide?: boolean;
  narrow?: boolean;
}

function Round({ icon, label, hint, onClick, testid, off, on, pressed, badge, quiet, wide, narrow }: RoundProps) {
  return (
    <button type="button" className={`meet-round ${off ? 'off' : ''} ${on ? 'on' : ''} ${wide ? 'wide' : ''} ${narrow ? 'narrow' : ''}`} aria-label={label} aria-pressed={pressed} title={hint ? `${label} (${hint})` : label} data-testid={testid} onClick={onClick}>
      <Icon name={icon} size={22} />
      {!!badge && (
        <span className={`meet-badge ${quiet ? 'quiet' : ''}`} aria-hidden="true">
          {badge > 99 ? '99+' : badge}
        </span>
      )}
    </button>
  );
}

function Leave({ host, press }: { host: boolean; press: (key: string, act: () => void) => () => void }) {
  const meeting = useMeeting();
  const w = useWords();
  if (!host)
    return (
      <button type="button" className="meet-round hangup" aria-label={w.leave} title={w.leave} data-testid="bar-leave" onClick={press('hangup', () => void meeting.hangUp())}>
        <Icon name="hangup" size={24} />
      </button>
    );
  return (
    <Menu
      label={w.leaveMenu}
      className="meet-round hangup"
      testid="bar-leave"
      entries={[
        { icon: 'leave', label: w.leave, testid: 'leave-only', do: press('hangup', () => void meeting.hangUp()) },
        { icon: 'hangup', label: w.endForAll, danger: true, testid: 'leave-end', do: press('end-meeting', () => meeting.tried(meeting.end())) },
      ]}
    >
      <Icon name="hangup" size={24} />
    </Menu>
  );
}

function Reactions() {
  const meeting = useMeeting();
  const w = useWords();
  const [open, setOpen] = useState(false);
  const around = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    if (!open) return;
    const outside = (e: PointerEvent) => !around.current?.contains(e.target as Node) && setOpen(false);
    document.addEventListener('pointerdown', outside);
    return () => document.removeEventListener('pointerdown', outside);
  }, [open]);
  return (
    <span className="meet-menu-anchor" ref={around} onKeyDown={(e) => e.key === 'Escape' && setOpen(false)}>
      <button type="button" className={`meet-round ${open ? 'on' : ''}`} aria-label={w.react} title={w.react} aria-expanded={open} data-testid="bar-react" onClick={() => setOpen(!open)}>
        <Icon name="smile" size={22} />
      </button>
      {open && (
        <div className="meet-emojis" role="group" aria-label={w.react}>
          {REACTIONS.map((emoji) => (
            <button key={emoji} type="button" data-testid="react" onClick={() => meeting.button('reactions', () => void meeting.react(emoji))}>
              {emoji}
            </button>
          ))}
        </div>
      )}
    </span>
  );
}
