// SPDX-License-Identifier: Apache-2.0
import { useState } from 'react';
import { groupWords, type LoggedCall } from '../matrix/callLog.ts';
import { tileWords } from '../matrix/callTile.ts';
import { displayName, localPart } from '../matrix/names.ts';
import { openRoom, useApp } from '../store.ts';
import { Avatar } from '../ui/Avatar.tsx';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from './context.ts';
import { shortTime, timeOfDay } from './times.ts';
import { useCallLog } from './useCallLog.ts';

/** One's own calls, with a button to ring back. */
export function CallsView() {
  const [missed, setMissed] = useState(false);
  const log = useCallLog(missed);
  return (
    <section className="calls" aria-label="Calls" data-testid="calls" data-state={log.state}>
      <header className="room-head">
        <button type="button" className="icon-button only-phone" aria-label="Back to the list" data-testid="back" onClick={() => openRoom(null)}>
          <Icon name="back" />
        </button>
        <div className="room-title">
          <h1>Calls</h1>
        </div>
        <div className="segments" role="group" aria-label="Which calls">
          <button type="button" aria-pressed={!missed} data-testid="calls-all" onClick={() => setMissed(false)}>
            All
          </button>
          <button type="button" aria-pressed={missed} data-testid="calls-missed" onClick={() => setMissed(true)}>
            Missed
          </button>
        </div>
      </header>
      <div className="calls-scroll">
        {log.calls.length > 0 && (
          <ul className="calls-list">
            {log.calls.map((call) => (
              <Row key={call.callId} call={call} />
            ))}
          </ul>
        )}
        {log.calls.length === 0 && log.state === 'ready' && <p className="calls-note">{missed ? 'You have missed no call.' : 'Whom you call, and who calls you, is listed here.'}</p>}
        {log.state === 'loading' && log.calls.length === 0 && (
          <p className="calls-note" role="status">
            <span className="spinner" aria-hidden="true" /> Looking…
          </p>
        )}
        {log.state === 'failed' && (
          <p className="calls-note" role="alert">
            The server’s list cannot be read.{' '}
            <button type="button" className="button button-small" onClick={log.again}>
              Try again
            </button>
          </p>
        )}
        {log.more && (
          <button type="button" className="button" data-testid="calls-more" onClick={log.more}>
            Older calls
          </button>
        )}
        <p className="calls-note">The server cannot see calls of two in encrypted chats: of those, the ones that this device has the messages of are listed.</p>
      </div>
    </section>
  );
}

function Row({ call }: { call: LoggedCall }) {
  const connection = useConnection();
  const busy = useApp((s) => (s.call !== null && s.call.phase !== 'ended') || s.group !== null);
  const room = connection.client.getRoom(call.roomId);
  const here = room?.getMyMembership() === 'join';
  const person = call.peer ? (room ? displayName(room, call.peer) : localPart(call.peer)) : undefined;
  const name = person ?? room?.name ?? 'A room you have left';
  const words = tileWords(call, connection.userId);
  const missed = call.outcome === 'missed';
  const text = call.group ? groupWords(call) : words.title;
  const now = Date.now();
  const peer = call.group ? undefined : call.peer;
  return (
    <li className={`calls-row ${missed ? 'is-missed' : ''}`} data-testid="calls-row" data-outcome={call.outcome} data-call-id={call.callId} data-outgoing={call.outgoing}>
      <button type="button" className="calls-open" disabled={!here} aria-label={`${name}: open the conversation`} onClick={() => openRoom(call.roomId)}>
        <Avatar id={call.peer ?? call.roomId} name={name} room={!person} />
        <span className="room-text">
          <span className="room-name">{name}</span>
          <span className="room-preview">
            <Icon name={missed ? 'missed' : call.group ? 'people' : call.video ? 'video' : 'phone'} size={14} /> {call.group ? '' : call.outgoing ? 'Outgoing · ' : missed ? '' : 'Incoming · '}
            {text}
            {words.detail ? ` · ${words.detail}` : ''}
          </span>
        </span>
        <time dateTime={new Date(call.startedAt).toISOString()} title={new Date(call.startedAt).toLocaleString()}>
          {shortTime(call.startedAt, now)}
          {shortTime(call.startedAt, now) === timeOfDay(call.startedAt) ? '' : ` ${timeOfDay(call.startedAt)}`}
        </time>
      </button>
      {here && peer && (
        <button
          type="button"
          className="icon-button"
          disabled={busy}
          aria-label={`${call.outgoing ? 'Call again' : 'Call back'}: ${name}, ${call.video ? 'video' : 'voice'}`}
          title={call.outgoing ? 'Call again' : 'Call back'}
          data-testid="calls-back"
          onClick={() => void connection.calls.place(call.roomId, peer, call.video)}
        >
          <Icon name={call.video ? 'video' : 'phone'} />
        </button>
      )}
    </li>
  );
}
