// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef } from 'react';
import { useApp } from '../store.ts';
import { Avatar } from '../ui/Avatar.tsx';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';

export function IncomingCall() {
  const incoming = useApp((s) => s.incoming);
  if (!incoming) return null;
  return <Ringing key={incoming.callId} />;
}

function Ringing() {
  const { calls } = useConnection();
  const incoming = useApp((s) => s.incoming)!;
  const inCall = useApp((s) => s.call !== null && s.call.phase !== 'ended');
  const ref = useRef<HTMLDialogElement>(null);
  const card = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    // No button has the focus: somebody who was typing must neither accept nor decline with the next key.
    card.current?.focus();
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={ref}
      className="incoming"
      aria-labelledby="incoming-name"
      aria-describedby="incoming-kind"
      data-testid="incoming"
      data-call-id={incoming.callId}
      data-video={incoming.video}
      // Escape must not lose a call by accident: declining is a choice.
      onCancel={(e) => e.preventDefault()}
    >
      <div className="incoming-card" ref={card} tabIndex={-1}>
        <div className="call-halo is-pulsing">
          <Avatar id={incoming.peerId} name={incoming.peerName} size="xl" />
        </div>
        <h2 id="incoming-name" dir="auto">
          {incoming.peerName}
        </h2>
        {/* Names can be alike, ids cannot. */}
        <p className="incoming-id" data-testid="incoming-id">
          {incoming.peerId}
        </p>
        <p id="incoming-kind">
          {incoming.video ? 'Incoming video call' : 'Incoming voice call'}
          {inCall && <small>Accepting ends the call you are in.</small>}
        </p>
        {incoming.problem && (
          <p className="incoming-problem" role="alert" data-testid="incoming-problem">
            {incoming.problem}
          </p>
        )}
        <div className="incoming-actions">
          <Answer label="Decline" icon="hangup" tone="is-decline" testid="incoming-decline" onClick={() => calls.decline()} />
          {incoming.video && <Answer label="Voice only" icon="phone" tone="is-plain" testid="incoming-accept-audio" onClick={() => void calls.accept(false)} />}
          <Answer label="Accept" icon={incoming.video ? 'video' : 'phone'} tone="is-accept" testid="incoming-accept" onClick={() => void calls.accept(incoming.video)} />
        </div>
      </div>
    </dialog>
  );
}

interface AnswerProps {
  label: string;
  icon: 'hangup' | 'phone' | 'video';
  tone: string;
  testid: string;
  onClick: () => void;
}

function Answer({ label, icon, tone, testid, onClick }: AnswerProps) {
  return (
    <button type="button" className={`answer ${tone}`} data-testid={testid} onClick={onClick}>
      <span className="answer-disc">
        <Icon name={icon} size={26} />
      </span>
      <span>{label}</span>
    </button>
  );
}
