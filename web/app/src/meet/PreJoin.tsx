// SPDX-License-Identifier: Apache-2.0
// Before the meeting: one looks at oneself, chooses devices and a name.
import { type FormEvent, useEffect, useRef, useState } from 'react';
import { Avatar } from '../ui/Avatar.tsx';
import { Icon, Logo } from '../ui/Icon.tsx';
import { DeviceFields } from './Devices.tsx';
import { listen } from './preview.ts';
import { useMeet, useMeeting, useWords } from './use.ts';

export function PreJoin() {
  const meeting = useMeeting();
  const w = useWords();
  const name = useMeet((s) => s.name);
  const subject = useMeet((s) => s.subject);
  const info = useMeet((s) => s.info);
  const phase = useMeet((s) => s.phase);
  const encrypted = useMeet(() => meeting.key !== undefined);
  const known = useMeet((s) => s.options.displayName);
  // One comes to the call of a room as the member that one is there.
  const call = useMeet((s) => s.options.call === true);
  const [typed, setTyped] = useState<string>();
  const [asked, setAsked] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const displayName = typed ?? known ?? '';
  const joining = phase === 'joining';

  useEffect(() => {
    void meeting.openPreview();
    void meeting.look();
  }, [meeting]);

  const submit = (e: FormEvent) => {
    e.preventDefault();
    if (displayName.trim() === '' && !call) {
      setAsked(true);
      input.current?.focus();
      return;
    }
    meeting.configure({ displayName: displayName.trim() });
    void meeting.join();
  };

  return (
    <main className="meet-prejoin" data-testid="prejoin">
      <Looking name={displayName || w.you} />
      <form className="meet-card" onSubmit={submit} noValidate>
        <p className="meet-brand">
          <Logo size={22} /> Trunkboard
        </p>
        <h1 data-testid="meet-title">{subject || name}</h1>
        <p className="meet-about" data-testid="meet-about" aria-live="polite">
          {info && (info.participants > 0 ? w.peopleThere(info.participants) : w.nobodyThere)}
          {info?.access === 'lobby' && <span> · {w.willAsk}</span>}
          {info?.access === 'password' && <span> · {w.needsPassword}</span>}
          {(info?.e2ee || encrypted) && (
            <span className="meet-secure">
              <Icon name="lock" size={14} /> {w.encrypted}
            </span>
          )}
        </p>
        {!call && (
          <label className="field">
            {w.yourName}
            <input
              ref={input}
              value={displayName}
              placeholder={w.namePlaceholder}
              maxLength={80}
              autoComplete="name"
              data-testid="meet-name"
              aria-invalid={asked && displayName.trim() === ''}
              aria-describedby={asked ? 'meet-name-problem' : undefined}
              onChange={(e) => setTyped(e.target.value)}
            />
            {asked && displayName.trim() === '' && (
              <small id="meet-name-problem" className="meet-problem" role="alert">
                {w.nameNeeded}
              </small>
            )}
          </label>
        )}
        {info && !info.exists && info.may_create && !call && (
          <label className="check">
            <input type="checkbox" checked={encrypted} data-testid="meet-encrypt" onChange={(e) => meeting.encrypt(e.target.checked)} />
            <span>
              {w.encryptNew} <small>{w.encryptNewHint}</small>
            </span>
          </label>
        )}
        <button className="button button-primary button-wide meet-join" type="submit" disabled={joining} autoFocus={call} data-testid="meet-join">
          {joining ? <span className="spinner" aria-hidden="true" /> : null}
          {joining ? w.joining : w.join}
        </button>
        <DeviceFields />
      </form>
    </main>
  );
}

function Looking({ name }: { name: string }) {
  const meeting = useMeeting();
  const w = useWords();
  const preview = useMeet(() => meeting.preview.state);
  const wish = useMeet((s) => s.wish);
  const video = useRef<HTMLVideoElement>(null);
  const { camera, microphone, trouble, starting } = preview;

  useEffect(() => {
    const element = video.current;
    if (!element) return;
    element.srcObject = camera ? new MediaStream([camera]) : null;
    return () => {
      element.srcObject = null;
    };
  }, [camera]);

  return (
    <section className="meet-looking" aria-label={w.camera}>
      <div className="meet-mirror">
        <video ref={video} autoPlay playsInline muted hidden={!camera} aria-label={w.pictureOf(name)} data-testid="meet-preview" />
        {!camera && (
          <div className="meet-faceless">
            <Avatar id={name} name={name} size="xl" />
            <p>{starting && !wish.video ? w.cameraStarting : w.cameraOff}</p>
          </div>
        )}
        <div className="meet-mirror-bar">
          <button type="button" className={`meet-round ${wish.audio ? 'off' : ''}`} aria-label={wish.audio ? w.unmute : w.mute} title={wish.audio ? w.unmute : w.mute} aria-pressed={wish.audio} data-testid="prejoin-mic" onClick={() => void meeting.setMuted('audio', !wish.audio)}>
            <Icon name={wish.audio ? 'micOff' : 'mic'} size={22} />
          </button>
          <button type="button" className={`meet-round ${wish.video ? 'off' : ''}`} aria-label={wish.video ? w.cameraStart : w.cameraStop} title={wish.video ? w.cameraStart : w.cameraStop} aria-pressed={wish.video} data-testid="prejoin-camera" onClick={() => void meeting.setMuted('video', !wish.video)}>
            <Icon name={wish.video ? 'videoOff' : 'video'} size={22} />
          </button>
        </div>
        {microphone && <Level track={microphone} />}
      </div>
      {!window.isSecureContext && <p className="callout callout-problem">{w.insecure}</p>}
      {(['audio', 'video'] as const).map((kind) => {
        const why = trouble[kind];
        return why && window.isSecureContext ? (
          <p key={kind} className="callout callout-problem" role="status">
            {w.trouble[why](kind === 'audio' ? w.microphone : w.camera)}
          </p>
        ) : null;
      })}
    </section>
  );
}

/** How loud the microphone is: proof that it is the right one. */
function Level({ track }: { track: MediaStreamTrack }) {
  const w = useWords();
  const meter = useRef<HTMLMeterElement>(null);
  useEffect(() => {
    try {
      return listen(track, (level) => {
        if (meter.current) meter.current.value = level;
      });
    } catch {
      return; // Without Web Audio there is no meter.
    }
  }, [track]);
  return <meter ref={meter} className="meet-level" min={0} max={1} aria-label={w.level} data-testid="meet-level" />;
}
