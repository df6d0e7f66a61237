// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef } from 'react';
import { openRoom, useApp } from '../store.ts';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';

/** The group call over everything else, or in a corner while the person reads on. The frame stays the same, or the call would end. */
export function GroupCallScreen() {
  const connection = useConnection();
  const group = useApp((s) => s.group);
  const frame = useRef<HTMLIFrameElement>(null);
  const call = connection.groups.current;
  const open = group !== null && call !== null;

  useEffect(() => {
    if (!call || !frame.current) return;
    // Connected first, loaded then: the widget speaks as soon as it is there.
    call.attach(frame.current);
    frame.current.src = call.url;
    // The keyboard goes into the call, and back to where it was.
    const before = document.activeElement;
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, [call]);

  if (!open) return null;
  return (
    <section
      className={`group-call ${group.minimised ? 'is-small' : ''} ${group.meeting ? 'is-meeting' : ''}`}
      aria-label={`Group call in ${group.name}`}
      data-testid="group-call"
      data-joined={group.joined}
    >
      <header className="group-call-head">
        <h2>{group.name}</h2>
        {group.minimised ? (
          <button
            type="button"
            className="icon-button"
            aria-label="Back to the call"
            title="Back to the call"
            data-testid="group-expand"
            onClick={() => {
              openRoom(group.roomId);
              connection.groups.minimise(false);
            }}
          >
            <Icon name="expand" size={18} />
          </button>
        ) : (
          <button type="button" className="icon-button" aria-label="Make the call small" title="Make the call small" data-testid="group-minimise" onClick={() => connection.groups.minimise(true)}>
            <Icon name="minimise" size={18} />
          </button>
        )}
        {/* Our own page has a button to leave, once one is in. */}
        {group.meeting && !group.joined ? (
          <button type="button" className="icon-button" aria-label="Do not join" title="Do not join" data-testid="group-leave" onClick={() => void connection.groups.hangUp()}>
            <Icon name="close" size={18} />
          </button>
        ) : (
          (!group.meeting || group.minimised) && (
            <button type="button" className="icon-button is-danger" aria-label="Leave the call" title="Leave the call" data-testid="group-leave" onClick={() => void connection.groups.hangUp()}>
              <Icon name="hangup" size={18} />
            </button>
          )
        )}
      </header>
      <iframe ref={frame} className="group-call-frame" title={`Group call in ${group.name}`} allow="camera; microphone; display-capture; autoplay; clipboard-write; fullscreen; screen-wake-lock" data-testid="group-frame" onLoad={() => frame.current?.focus()} />
    </section>
  );
}
