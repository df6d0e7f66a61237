// SPDX-License-Identifier: Apache-2.0
import { tileWords } from '../matrix/callTile.ts';
import type { TimelineRow } from '../matrix/timeline.ts';
import { useApp } from '../store.ts';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from './context.ts';
import { timeOfDay } from './times.ts';

const CAN_CALL_BACK = new Set(['missed', 'unanswered', 'declined', 'busy', 'failed', 'cancelled']);

export function CallTile({ roomId, row }: { roomId: string; row: Extract<TimelineRow, { kind: 'call' }> }) {
  const connection = useConnection();
  const busy = useApp((s) => s.call !== null && s.call.phase !== 'ended');
  const { call } = row;
  const { title, detail } = tileWords(call, connection.userId);
  const missed = call.outcome === 'missed';
  const outgoing = call.caller === connection.userId;

  const callBack = () => {
    const room = connection.client.getRoom(roomId);
    const other = outgoing ? room?.getMembers().find((m) => m.userId !== connection.userId)?.userId : call.caller;
    if (other) void connection.calls.place(roomId, other, call.video);
  };

  return (
    <div className={`call-tile ${missed ? 'is-missed' : ''}`} data-testid="call-tile" data-outcome={call.outcome} data-call-id={call.callId}>
      <span className="call-tile-icon">
        <Icon name={missed ? 'missed' : call.video ? 'video' : 'phone'} />
      </span>
      <span className="call-tile-text">
        <strong>
          {title}
          {detail ? ` · ${detail}` : ''}
        </strong>
        <small>
          {outgoing ? 'Outgoing' : 'Incoming'} · {timeOfDay(call.startedAt)}
        </small>
      </span>
      {CAN_CALL_BACK.has(call.outcome) && (
        <button type="button" className="button button-small" disabled={busy} onClick={callBack} data-testid="call-back">
          {outgoing ? 'Call again' : 'Call back'}
        </button>
      )}
    </div>
  );
}
