// SPDX-License-Identifier: Apache-2.0
import { type FormEvent, useEffect, useState } from 'react';
import { Avatar } from '../ui/Avatar.tsx';
import { Dialog } from '../ui/Dialog.tsx';
import { Icon } from '../ui/Icon.tsx';
import { DeviceFields } from './Devices.tsx';
import { remember } from './options.ts';
import { SHORTCUTS_KEY } from './shortcuts.ts';
import { useMeet, useMeeting, useSurround, useWords } from './use.ts';
import { LANGUAGES, type Language } from './words.ts';

export type DialogName = 'invite' | 'settings' | 'security' | 'statistics' | 'records' | 'shortcuts' | 'quality';

interface Props {
  onClose: () => void;
}

/** The link that others open: the page's address without what only this page was told. */
export function inviteLink(place: { origin: string; pathname: string }, key: string | undefined): string {
  return `${place.origin}${place.pathname}${key ? `#key=${key}` : ''}`;
}

export function InviteDialog({ onClose }: Props) {
  const meeting = useMeeting();
  const w = useWords();
  const encrypted = useMeet((s) => s.e2ee === 'on');
  const name = useMeet((s) => s.subject || s.name);
  const link = inviteLink(location, encrypted ? meeting.key : undefined);
  const [copied, setCopied] = useState(false);
  const [picture, setPicture] = useState('');

  useEffect(() => {
    let url = '';
    let gone = false;
    void import('qrcode').then(async ({ default: qr }) => {
      const svg = await qr.toString(link, { type: 'svg', margin: 2, errorCorrectionLevel: 'M' });
      if (gone) return;
      url = URL.createObjectURL(new Blob([svg], { type: 'image/svg+xml' }));
      setPicture(url);
    });
    return () => {
      gone = true;
      if (url) URL.revokeObjectURL(url);
    };
  }, [link]);

  const copy = async () => {
    await navigator.clipboard.writeText(link);
    setCopied(true);
  };
  return (
    <Dialog title={w.invite} onClose={onClose} closeLabel={w.close} testid="meet-invite">
      <p>{encrypted ? w.inviteEncrypted : w.inviteText}</p>
      <div className="meet-link">
        <input readOnly value={link} aria-label={w.copyLink} data-testid="meet-link" onFocus={(e) => e.target.select()} />
        <button type="button" className="button button-primary" onClick={() => void copy().catch(() => {})}>
          <Icon name={copied ? 'check' : 'copy'} size={18} /> <span aria-live="polite">{copied ? w.copied : w.copyLink}</span>
        </button>
      </div>
      <div className="meet-qr">
        {picture && <img src={picture} alt={w.qr} width={216} height={216} data-testid="meet-qr" />}
        <p>{w.qrHint}</p>
      </div>
      {'share' in navigator && (
        <button type="button" className="button button-wide" onClick={() => void navigator.share({ title: name, url: link }).catch(() => {})}>
          {w.shareLink}
        </button>
      )}
    </Dialog>
  );
}

export function SettingsDialog({ onClose }: Props) {
  const meeting = useMeeting();
  const { words: w, language, setLanguage } = useSurround();
  const blur = useMeet((s) => s.blur);
  const videoOff = useMeet((s) => s.me?.muted.video ?? true);
  const name = useMeet((s) => s.me?.name ?? '');
  const [typed, setTyped] = useState(name);
  return (
    <Dialog title={w.settings} onClose={onClose} closeLabel={w.close} testid="meet-settings">
      <form
        onSubmit={(e) => {
          e.preventDefault();
          if (typed.trim()) meeting.tried(meeting.setName(typed.trim()));
        }}
      >
        <div className="meet-link">
          <label className="field">
            {w.yourName}
            <input value={typed} maxLength={80} data-testid="settings-name" onChange={(e) => setTyped(e.target.value)} />
          </label>
          <button type="submit" className="button" disabled={!typed.trim() || typed.trim() === name} data-testid="settings-name-save">
            {w.save}
          </button>
        </div>
      </form>
      <DeviceFields />
      <Switch label={blur === 'loading' ? `${w.blur} – ${w.blurLoading}` : w.blur} on={blur !== 'off'} disabled={videoOff || blur === 'loading'} testid="settings-blur" set={(on) => void meeting.setBlur(on)} />
      <Quality />
      <label className="field">
        {w.language}
        <select className="meet-select" value={language} data-testid="settings-language" onChange={(e) => setLanguage(e.target.value as Language)}>
          {Object.entries(LANGUAGES).map(([tag, word]) => (
            <option key={tag} value={tag} lang={tag}>
              {word}
            </option>
          ))}
        </select>
      </label>
    </Dialog>
  );
}

function Quality() {
  const meeting = useMeeting();
  const w = useWords();
  const quality = useMeet((s) => (s.audioOnly ? 0 : s.quality));
  return (
    <fieldset className="meet-choices">
      <legend>{w.receive}</legend>
      {Object.entries(w.qualities).map(([height, word]) => (
        <label key={height}>
          <input type="radio" name="quality" checked={quality === Number(height)} onChange={() => meeting.setQuality(Number(height))} data-testid={`quality-${height}`} />
          <span>{word}</span>
        </label>
      ))}
    </fieldset>
  );
}

export function QualityDialog({ onClose }: Props) {
  const w = useWords();
  return (
    <Dialog title={w.receive} onClose={onClose} closeLabel={w.close}>
      <Quality />
    </Dialog>
  );
}

export function Switch({ label, hint, on, set, disabled = false, testid }: { label: string; hint?: string; on: boolean; set: (on: boolean) => void; disabled?: boolean; testid?: string }) {
  return (
    <label className="meet-switch">
      <span>
        {label}
        {hint && <small>{hint}</small>}
      </span>
      <input type="checkbox" role="switch" checked={on} disabled={disabled} data-testid={testid} onChange={(e) => set(e.target.checked)} />
    </label>
  );
}

export function SecurityDialog({ onClose }: Props) {
  const meeting = useMeeting();
  const w = useWords();
  const host = useMeet((s) => s.me?.host === true);
  const lobby = useMeet((s) => s.lobby);
  const password = useMeet((s) => s.password);
  const may = useMeet((s) => s.mayUnmute);
  const subject = useMeet((s) => s.subject);
  const encrypted = useMeet((s) => s.e2ee === 'on');
  const [newPassword, setNewPassword] = useState('');
  const [newSubject, setNewSubject] = useState(subject);
  const setPassword = (e: FormEvent) => {
    e.preventDefault();
    meeting.tried(meeting.givePassword(newPassword).then(() => setNewPassword('')));
  };
  return (
    <Dialog title={w.security} onClose={onClose} closeLabel={w.close} testid="meet-security">
      {encrypted && (
        <p className="callout meet-secure">
          <Icon name="lock" size={16} /> {w.encrypted}
        </p>
      )}
      {!host && <p className="callout">{w.onlyHosts}</p>}
      <Switch label={w.lobbySwitch} hint={w.lobbySwitchHint} on={lobby} disabled={!host} testid="security-lobby" set={(on) => meeting.tried(meeting.setLobby(on))} />
      <Switch label={w.mayAudio} on={may.audio} disabled={!host} testid="security-audio" set={(on) => meeting.tried(meeting.host.mayUnmute('audio', on))} />
      <Switch label={w.mayVideo} on={may.video} disabled={!host} testid="security-video" set={(on) => meeting.tried(meeting.host.mayUnmute('video', on))} />
      {host && (
        <>
          <form onSubmit={setPassword}>
            {password ? (
              <div className="meet-switch">
                <span data-testid="security-has-password">{w.passwordIs}</span>
                <button type="button" className="button button-small" data-testid="security-password-remove" onClick={() => meeting.tried(meeting.givePassword(''))}>
                  {w.passwordRemove}
                </button>
              </div>
            ) : (
              <div className="meet-link">
                <label className="field">
                  {w.password}
                  <input type="text" value={newPassword} autoComplete="off" spellCheck={false} data-testid="security-password" onChange={(e) => setNewPassword(e.target.value)} />
                </label>
                <button type="submit" className="button" disabled={!newPassword} data-testid="security-password-set">
                  {w.passwordSet}
                </button>
              </div>
            )}
          </form>
          <form
            onSubmit={(e) => {
              e.preventDefault();
              meeting.tried(meeting.setSubject(newSubject.trim()));
            }}
          >
            <div className="meet-link">
              <label className="field">
                {w.subject}
                <input value={newSubject} maxLength={200} data-testid="security-subject" onChange={(e) => setNewSubject(e.target.value)} />
              </label>
              <button type="submit" className="button" disabled={newSubject.trim() === subject} data-testid="security-subject-set">
                {w.subjectSet}
              </button>
            </div>
          </form>
        </>
      )}
    </Dialog>
  );
}

export function StatisticsDialog({ onClose }: Props) {
  const meeting = useMeeting();
  const w = useWords();
  const [rows, setRows] = useState(() => meeting.spoken());
  useEffect(() => {
    const timer = setInterval(() => setRows(meeting.spoken()), 1000);
    return () => clearInterval(timer);
  }, [meeting]);
  const most = Math.max(1, ...rows.map((r) => r.ms));
  return (
    <Dialog title={w.statistics} onClose={onClose} closeLabel={w.close} testid="meet-statistics">
      <ul className="meet-spoken">
        {rows.map(({ person, ms }) => (
          <li key={person.id} data-testid="spoken" data-name={person.name} data-ms={Math.round(ms)}>
            <Avatar id={person.id} name={person.name} size="s" />
            <bdi>{person.local ? w.youSuffix(person.name) : person.name}</bdi>
            <progress max={most} value={ms} aria-label={`${w.spoke}: ${person.name}`} />
            <span>{clock(ms)}</span>
          </li>
        ))}
      </ul>
    </Dialog>
  );
}

/** `4:05`, `1:02:03`. */
export function clock(ms: number): string {
  const s = Math.floor(ms / 1000);
  const two = (n: number) => String(n).padStart(2, '0');
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

export function ShortcutsDialog({ onClose, on, setOn }: Props & { on: boolean; setOn: (on: boolean) => void }) {
  const w = useWords();
  const names: Record<string, string> = { space: '␣', digits: '0–9', help: '?' };
  return (
    <Dialog title={w.shortcuts} onClose={onClose} closeLabel={w.close} testid="meet-shortcuts">
      <dl className="meet-keys">
        {Object.entries(w.shortcutKeys).map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{names[key] ?? key.toUpperCase()}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <Switch
        label={w.shortcutsOn}
        hint={w.shortcutsHint}
        on={on}
        testid="shortcuts-on"
        set={(to) => {
          remember(SHORTCUTS_KEY, to ? '' : 'off');
          setOn(to);
        }}
      />
    </Dialog>
  );
}
