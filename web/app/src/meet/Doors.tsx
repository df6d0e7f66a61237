// SPDX-License-Identifier: Apache-2.0
// What one sees instead of the meeting: password, lobby, missing key, and the endings.
import { type FormEvent, type ReactNode, useEffect, useRef, useState } from 'react';
import { Icon, type IconName, Logo } from '../ui/Icon.tsx';
import { keyOf } from './options.ts';
import { NO_MEDIA, SIGN_IN } from './refusals.ts';
import { useMeet, useMeeting, useWords } from './use.ts';

function Door({ icon, title, testid, children }: { icon: IconName; title: string; testid: string; children: ReactNode }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <main className="meet-door" data-testid={testid}>
      <div className="meet-card">
        <p className="meet-brand">
          <Logo size={22} /> Trunkboard
        </p>
        <span className="meet-door-icon">
          <Icon name={icon} size={30} />
        </span>
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {children}
      </div>
    </main>
  );
}

interface FormProps {
  /** Does what the door is for; the button waits until `ready`. */
  onEnter: () => void;
  ready?: boolean;
  action: string;
  actionTestid?: string;
  /** Turns back from the door; without it there is nowhere to go. */
  onCancel?: () => void;
  children: ReactNode;
}

/** The question that a door asks, with its way in and its way back. */
function DoorForm({ onEnter, ready = true, action, actionTestid, onCancel, children }: FormProps) {
  const w = useWords();
  const submit = (e: FormEvent) => {
    e.preventDefault();
    if (ready) onEnter();
  };
  return (
    <form onSubmit={submit}>
      {children}
      <button className="button button-primary button-wide" type="submit" disabled={!ready} data-testid={actionTestid}>
        {action}
      </button>
      {onCancel && (
        <button className="button button-wide" type="button" onClick={onCancel}>
          {w.cancel}
        </button>
      )}
    </form>
  );
}

/** Letters that cannot be taken for each other, in groups that can be said over a telephone. */
export function suggestion(): string {
  const letters = 'abcdefghjkmnpqrstuvwxyz';
  const drawn = [...crypto.getRandomValues(new Uint8Array(11))].map((n) => letters[n % letters.length]).join('');
  return `${drawn.slice(0, 4)}-${drawn.slice(4, 8)}-${drawn.slice(8)}`;
}

/** The page without a meeting's name in its address. */
export function Start() {
  const w = useWords();
  const [name, setName] = useState(suggestion);
  return (
    <Door icon="video" title={w.startTitle} testid="meet-start">
      <p>{w.startText}</p>
      <DoorForm onEnter={() => location.assign(`/meet/${encodeURIComponent(name.trim())}`)} ready={name.trim() !== ''} action={w.startGo} actionTestid="start-go">
        <label className="field">
          {w.startName}
          <input value={name} maxLength={100} autoComplete="off" spellCheck={false} data-testid="start-name" onChange={(e) => setName(e.target.value)} />
        </label>
      </DoorForm>
    </Door>
  );
}

export function PasswordDoor() {
  const meeting = useMeeting();
  const w = useWords();
  const problem = useMeet((s) => s.problem);
  const [password, setPassword] = useState('');
  return (
    <Door icon="lock" title={w.passwordTitle} testid="meet-password-door">
      <DoorForm onEnter={() => void meeting.givePassword(password)} ready={password !== ''} action={w.enter} actionTestid="meet-password-enter" onCancel={() => void meeting.hangUp()}>
        <label className="field">
          {w.password}
          <input type="password" value={password} autoFocus autoComplete="off" data-testid="meet-password" aria-invalid={!!problem} aria-describedby={problem ? 'meet-password-problem' : undefined} onChange={(e) => setPassword(e.target.value)} />
          {problem && (
            <small id="meet-password-problem" className="meet-problem" role="alert" data-testid="meet-password-problem">
              {problem.text}
            </small>
          )}
        </label>
      </DoorForm>
    </Door>
  );
}

export function KeyDoor() {
  const meeting = useMeeting();
  const w = useWords();
  const [text, setText] = useState('');
  const bare = text.trim();
  const key = keyOf(bare.includes('#') ? bare.slice(bare.indexOf('#')) : `#key=${bare.replace(/^key=/, '')}`);
  return (
    <Door icon="key" title={w.keyTitle} testid="meet-key-door">
      <p>{w.keyText}</p>
      <DoorForm onEnter={() => key && void meeting.giveKey(key)} ready={key !== undefined} action={w.enter} onCancel={() => void meeting.hangUp()}>
        <label className="field">
          {w.keyPaste}
          <input value={text} autoComplete="off" spellCheck={false} data-testid="meet-key" onChange={(e) => setText(e.target.value)} />
        </label>
      </DoorForm>
    </Door>
  );
}

export function Lobby() {
  const meeting = useMeeting();
  const w = useWords();
  return (
    <Door icon="door" title={w.lobbyTitle} testid="meet-lobby">
      <p role="status">{w.lobbyText}</p>
      <span className="meet-dots" aria-hidden="true">
        <i />
        <i />
        <i />
      </span>
      <button className="button button-wide" type="button" data-testid="meet-lobby-stop" onClick={() => void meeting.hangUp()}>
        {w.stopWaiting}
      </button>
    </Door>
  );
}

export function Ending() {
  const meeting = useMeeting();
  const w = useWords();
  const phase = useMeet((s) => s.phase);
  const problem = useMeet((s) => s.problem);
  const embedded = useMeet((s) => s.options.embedded);
  const [icon, title, text]: [IconName, string, string] =
    phase === 'kicked'
      ? ['leave', w.kickedTitle, problem?.text ?? '']
      : phase === 'ended'
        ? ['check', w.endedTitle, w.endedText]
        : phase === 'failed'
          ? ['warning', w.failedTitle, problem?.text ?? w.unreachable]
          : ['leave', w.leftTitle, w.leftText];
  const wantsAccount = problem?.code === SIGN_IN;
  return (
    <Door icon={icon} title={title} testid={`meet-${phase}`}>
      {text && <p role="status">{text}</p>}
      <div className="meet-door-actions">
        {wantsAccount && (
          <a className="button button-primary button-wide" href="/">
            {w.signIn}
          </a>
        )}
        {phase !== 'kicked' && (
          <button className={`button button-wide ${wantsAccount ? '' : 'button-primary'}`} type="button" data-testid="meet-again" onClick={() => meeting.again()}>
            {phase === 'failed' ? w.again : w.rejoin}
          </button>
        )}
        {problem?.code === NO_MEDIA && (
          <a className="button button-wide" href="/doctor" target="_blank" rel="noopener" data-testid="meet-why">
            {w.noMediaWhy}
          </a>
        )}
        {!embedded && !wantsAccount && (
          <a className="button button-wide" href="/">
            {w.home}
          </a>
        )}
      </div>
    </Door>
  );
}
