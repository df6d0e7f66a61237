// SPDX-License-Identifier: Apache-2.0
import { useEffect, useReducer, useState } from 'react';
import { MatrixRTCSessionEvent, MatrixRTCSessionManagerEvents } from 'matrix-js-sdk/lib/matrixrtc/index.js';
import type { Room } from 'matrix-js-sdk';
import { useApp } from '../store.ts';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';
import { elementCall } from './settings.ts';

/** How many people are in the group call of a room, as it changes. */
function usePeople(room: Room): number {
  const { client, groups } = useConnection();
  const [, changed] = useReducer((n: number) => n + 1, 0);
  useEffect(() => {
    const session = client.matrixRTC.getRoomSession(room);
    session.on(MatrixRTCSessionEvent.MembershipsChanged, changed);
    client.matrixRTC.on(MatrixRTCSessionManagerEvents.SessionStarted, changed);
    client.matrixRTC.on(MatrixRTCSessionManagerEvents.SessionEnded, changed);
    return () => {
      session.off(MatrixRTCSessionEvent.MembershipsChanged, changed);
      client.matrixRTC.off(MatrixRTCSessionManagerEvents.SessionStarted, changed);
      client.matrixRTC.off(MatrixRTCSessionManagerEvents.SessionEnded, changed);
    };
  }, [client, room]);
  return groups.people(room);
}

/** Starts or joins the group call of a room; nothing where this server offers none. */
export function GroupCallButton({ room }: { room: Room }) {
  const connection = useConnection();
  const [offered, setOffered] = useState(false);
  const group = useApp((s) => s.group);
  const busy = useApp((s) => s.call !== null && s.call.phase !== 'ended');
  const people = usePeople(room);
  useEffect(() => {
    let here = true;
    void elementCall().then((at) => here && setOffered(at !== ''));
    return () => {
      here = false;
    };
  }, []);
  if (!offered) return null;

  if (group?.roomId === room.roomId) {
    return (
      <button type="button" className="button button-call" onClick={() => connection.groups.minimise(false)} data-testid="group-return">
        <Icon name="people" size={18} /> Back to call
      </button>
    );
  }
  const reason = !connection.groups.allowed(room) ? 'This room does not let you take part in group calls' : busy || group ? 'You are in another call' : '';
  const words = people ? `Join call (${people})` : 'Group call';
  return (
    <button
      type="button"
      className={people ? 'button button-call' : 'icon-button'}
      aria-label={people ? `Join the call of ${people}` : 'Start a group call'}
      title={reason || words}
      disabled={Boolean(reason)}
      data-testid="group-open"
      data-people={people}
      onClick={() => void connection.groups.open(room.roomId)}
    >
      <Icon name="people" size={people ? 18 : 20} /> {people ? words : null}
    </button>
  );
}
