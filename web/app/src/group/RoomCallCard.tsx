// SPDX-License-Identifier: Apache-2.0
import type { Room } from 'matrix-js-sdk';
import { roomCallTitle, type RoomCall } from '../matrix/roomCall.ts';
import { toast, useApp } from '../store.ts';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';
import { useAttendance } from './useAttendance.ts';

/** The message that tells a room of a call: who is in it, and the way there. `at` is when it was written, in Unix milliseconds. */
export function RoomCallCard({ room, call, at }: { room: Room; call: RoomCall; at: number }) {
  const { groups } = useConnection();
  const attendance = useAttendance(call, at);
  const name = useApp((s) => s.group?.meeting);
  const busy = useApp((s) => s.group !== null || (s.call !== null && s.call.phase !== 'ended'));
  const inIt = name === call.name;
  const over = !inIt && (attendance === 'over' || attendance === 0);
  const people = typeof attendance === 'number' ? attendance : 0;
  const copy = () => void navigator.clipboard.writeText(call.url).then(() => toast('Link copied.'), () => toast('The link could not be copied.', 'problem'));

  return (
    <div className={`room-call ${over ? 'is-over' : ''}`} data-testid="room-call" data-state={over ? 'over' : 'on'} data-people={people}>
      <span className="room-call-icon">
        <Icon name={call.video ? 'video' : 'phone'} />
      </span>
      <span className="room-call-text">
        <strong>{roomCallTitle(call)}</strong>
        <small aria-live="polite">{over ? 'Ended' : call.here ? (people > 0 ? `${people} ${people === 1 ? 'person' : 'people'} in it` : 'Looking who is there…') : 'On another server'}</small>
      </span>
      {!over && (
        <span className="room-call-ways">
          <button type="button" className="icon-button small" aria-label="Copy the link of this call" title="Copy the link, for somebody who is not in this room" data-testid="room-call-copy" onClick={copy}>
            <Icon name="link" size={18} />
          </button>
          {inIt ? (
            <button type="button" className="button button-small" data-testid="room-call-back" onClick={() => groups.minimise(false)}>
              Back to call
            </button>
          ) : call.here ? (
            <button type="button" className="button button-small button-call" disabled={busy} title={busy ? 'You are in another call' : undefined} data-testid="room-call-enter" onClick={() => groups.join(room.roomId, call)}>
              Join
            </button>
          ) : (
            <a className="button button-small button-call" href={call.url} target="_blank" rel="noreferrer noopener nofollow" data-testid="room-call-away">
              Join
            </a>
          )}
        </span>
      )}
    </div>
  );
}
