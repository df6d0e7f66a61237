// SPDX-License-Identifier: Apache-2.0
import { useCallback, useEffect, useRef, useState } from 'react';
import { clock } from '../matrix/callTile.ts';
import { useApp } from '../store.ts';
import { Avatar } from '../ui/Avatar.tsx';
import { toggleFullscreen, useFullscreen } from '../ui/fullscreen.ts';
import { Icon, type IconName } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';
import { DevicePickers } from './DevicePickers.tsx';
import { QualityBadge } from './QualityBadge.tsx';
import { Video } from './Video.tsx';
import type { CallView } from './view.ts';

/** The controls over a video fade after this time without a move. */
const IDLE_MS = 3500;

const PHASE_WORDS: Record<CallView['phase'], string> = {
  preparing: 'Getting ready…',
  ringing: 'Ringing…',
  connecting: 'Connecting…',
  connected: '',
  reconnecting: 'Reconnecting…',
  ended: '',
};

export function CallScreen() {
  const call = useApp((s) => s.call);
  if (!call) return null;
  return <Stage key={call.callId} call={call} />;
}

/** True while nothing has moved or been pressed for a while. */
function useIdle(active: boolean): { idle: boolean; wake: () => void } {
  const [idle, setIdle] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const wake = useCallback(() => {
    setIdle(false);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setIdle(true), IDLE_MS);
  }, []);
  useEffect(() => {
    wake();
    return () => clearTimeout(timer.current);
  }, [wake]);
  return { idle: active && idle, wake };
}

function Timer({ since }: { since: number }) {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return (
    <time className="call-timer" data-testid="call-timer">
      {clock(now - since)}
    </time>
  );
}

function Stage({ call }: { call: CallView }) {
  const { calls } = useConnection();
  const speaker = useApp((s) => s.devices.speaker);
  const root = useRef<HTMLElement>(null);
  const ended = call.phase === 'ended';
  const remotePicture = !ended && (call.remoteCamera || call.remoteScreen !== null);
  const [panel, setPanel] = useState<'devices' | 'quality' | null>(null);
  const { idle, wake } = useIdle(remotePicture && panel === null && !call.minimised && call.phase === 'connected');
  const full = useFullscreen();
  const selfPicture = !ended && !call.cameraOff && call.local !== null;
  const shortcuts = useCallback(
    (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (call.minimised || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
      const key = event.key.toLowerCase();
      if (key === 'm') void calls.toggleMic();
      else if (key === 'v') void calls.toggleCamera();
      else if (key === 'escape') setPanel(null);
      else return;
      wake();
    },
    [call.minimised, calls, wake],
  );
  useEffect(() => {
    window.addEventListener('keydown', shortcuts);
    return () => window.removeEventListener('keydown', shortcuts);
  }, [shortcuts]);
  useEffect(() => {
    if (!call.minimised) root.current?.focus();
  }, [call.minimised]);

  const classes = ['call', call.minimised ? 'is-mini' : '', remotePicture ? 'has-picture' : '', idle ? 'is-idle' : '', call.remoteScreen ? 'has-screen' : '', `is-${call.phase}`];
  const words = ended ? call.endedWords : PHASE_WORDS[call.phase];

  return (
    <section
      ref={root}
      className={classes.join(' ')}
      tabIndex={-1}
      role={call.minimised ? 'region' : 'dialog'}
      aria-modal={call.minimised ? undefined : true}
      aria-label={`Call with ${call.peerName}`}
      onPointerMove={wake}
      onKeyDown={wake}
      data-testid="call-screen"
      data-phase={call.phase}
      data-call-id={call.callId}
    >
      <div className="call-stage">
        {call.remoteScreen && <Video stream={call.remoteScreen} speaker={speaker} className="call-screen-video" label={`Screen of ${call.peerName}`} testid="call-remote-screen" />}
        {/* The other side's sound comes through this element, so it stays even when there is no picture. */}
        <Video
          stream={call.remoteVideo}
          speaker={speaker}
          className={`call-remote ${call.remoteScreen ? 'is-tile' : ''} ${call.remoteCamera && !ended ? '' : 'is-hidden'}`}
          label={`Video of ${call.peerName}`}
          testid="call-remote-video"
        />
        {!remotePicture && (
          <div className="call-portrait">
            <div className={`call-halo ${call.phase === 'ringing' || call.phase === 'preparing' ? 'is-pulsing' : ''}`}>
              <Avatar id={call.peerId} name={call.peerName} size="xl" />
            </div>
            <h2>{call.peerName}</h2>
            <p className="call-status" role="status" data-testid="call-status">
              {words || (call.connectedAt ? <Timer since={call.connectedAt} /> : '')}
            </p>
          </div>
        )}
        {selfPicture && (
          <div className="call-self">
            <Video stream={call.local} muted label="Your own video" className="is-mirrored" testid="call-local-video" />
            {call.micMuted && (
              <span className="call-self-muted">
                <Icon name="micOff" size={16} />
              </span>
            )}
          </div>
        )}
      </div>

      <header className="call-top">
        {!call.minimised && !ended && (
          <button type="button" className="call-chip" onClick={() => calls.minimise(true)} aria-label="Make the call small and go back to the chat" title="Back to chat" data-testid="call-minimise">
            <Icon name="minimise" size={18} />
          </button>
        )}
        {remotePicture && (
          <div className="call-who">
            <strong>{call.peerName}</strong>
            {call.connectedAt && <Timer since={call.connectedAt} />}
          </div>
        )}
        {call.remoteMicMuted && !ended && (
          <span className="call-chip is-note">
            <Icon name="micOff" size={16} /> <span>{call.peerName} is muted</span>
          </span>
        )}
        <span className="call-spring" />
        {!ended && call.connectedAt && <QualityBadge call={call} open={panel === 'quality'} onToggle={() => setPanel(panel === 'quality' ? null : 'quality')} />}
      </header>

      <div className="call-notes" aria-live="assertive">
        {call.phase === 'reconnecting' && (
          <p className="call-note is-warning" data-testid="call-reconnecting">
            <span className="spinner" aria-hidden="true" /> Connection lost. Reconnecting…
          </p>
        )}
        {call.notice && !ended && <p className="call-note">{call.notice}</p>}
        {call.sharing && !ended && (
          <p className="call-note">
            <Icon name="screen" size={18} /> You are sharing your screen
            <button type="button" className="link" onClick={() => void calls.toggleShare()}>
              Stop
            </button>
          </p>
        )}
      </div>

      {panel === 'devices' && !ended && (
        <div className="call-panel" role="group" aria-label="Devices" data-testid="call-devices-panel">
          <DevicePickers />
        </div>
      )}

      <div className="call-bar" role="group" aria-label="Call controls">
        {ended ? (
          <button type="button" className="button button-ghost" onClick={() => calls.dismiss()}>
            Close
          </button>
        ) : (
          <>
            <Control icon={call.micMuted ? 'micOff' : 'mic'} label={call.micMuted ? 'Unmute' : 'Mute'} off={call.micMuted} pressed={call.micMuted} testid="call-mute" onClick={() => void calls.toggleMic()} />
            <Control icon={call.cameraOff ? 'videoOff' : 'video'} label={call.cameraOff ? 'Camera on' : 'Camera off'} off={call.cameraOff} pressed={!call.cameraOff} testid="call-camera" onClick={() => void calls.toggleCamera()} />
            {'getDisplayMedia' in (navigator.mediaDevices ?? {}) && (
              <Control
                icon="screen"
                label={call.sharing ? 'Stop sharing' : 'Share screen'}
                on={call.sharing}
                pressed={call.sharing}
                disabled={call.phase !== 'connected'}
                testid="call-share"
                onClick={() => void calls.toggleShare()}
              />
            )}
            <Control icon="settings" label="Devices" pressed={panel === 'devices'} on={panel === 'devices'} testid="call-devices" onClick={() => setPanel(panel === 'devices' ? null : 'devices')} />
            <Control icon={full ? 'shrink' : 'expand'} label={full ? 'Leave full screen' : 'Full screen'} testid="call-fullscreen" className="no-phone" onClick={() => toggleFullscreen(root.current ?? undefined)} />
            <Control icon="hangup" label="Hang up" className="is-hangup" testid="call-hangup" onClick={() => calls.hangUp()} />
          </>
        )}
      </div>

      {call.minimised && (
        <button type="button" className="call-restore" aria-label={`Back to the call with ${call.peerName}`} onClick={() => calls.minimise(false)} data-testid="call-restore">
          <span>{words || call.peerName}</span>
        </button>
      )}
    </section>
  );
}

interface ControlProps {
  icon: IconName;
  label: string;
  onClick: () => void;
  testid: string;
  /** The thing is switched off: shown bright. */
  off?: boolean;
  on?: boolean;
  pressed?: boolean;
  disabled?: boolean;
  className?: string;
}

function Control({ icon, label, onClick, testid, off, on, pressed, disabled, className = '' }: ControlProps) {
  return (
    <button
      type="button"
      className={`control ${off ? 'is-off' : ''} ${on ? 'is-on' : ''} ${className}`}
      aria-label={label}
      aria-pressed={pressed}
      title={label}
      disabled={disabled}
      data-testid={testid}
      onClick={onClick}
    >
      <Icon name={icon} size={24} />
    </button>
  );
}
