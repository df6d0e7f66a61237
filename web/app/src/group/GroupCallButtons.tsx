// SPDX-License-Identifier: Apache-2.0
import { useEffect, useReducer, useState } from 'react';
import { MatrixRTCSessionEvent, MatrixRTCSessionManagerEvents } from 'matrix-js-sdk/lib/matrixrtc/index.js';
import type { Room } from 'matrix-js-sdk';
import type { TimelineRow } from '../matrix/timeline.ts';
import { useApp } from '../store.ts';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';
import type { Offer } from './host.ts';
import { useRunning } from './useAttendance.ts';

/** What this server holds group calls with; 'none' until it is known. */
function useOffer(): Offer {
  const { groups } = useConnection();
  const [offer, setOffer] = useState<Offer>('none');
  useEffect(() => {
    let here = true;
    void groups.offered().then((known) => here && setOffer(known));
    return () => {
      here = false;
    };
  }, [groups]);
  return offer;
}

/** How many people are in the Element Call of a room, as it changes. */
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

interface Props {
  room: Room;
  /** What we call it. */
  name: string;
  rows: TimelineRow[];
  /** How many people are in the room besides us. */
  others: number;
}

/** Starts or joins the group call of a room. */
export function GroupCallButtons(props: Props) {
  const { groups } = useConnection();
  const offer = useOffer();
  const here = useApp((s) => s.group?.roomId === props.room.roomId);
  if (here) {
    return (
      <button type="button" className="button button-call" onClick={() => groups.minimise(false)} data-testid="group-return">
        <Icon name="people" size={18} /> Back to call
      </button>
    );
  }
  return (
    <>
      {offer === 'element-call' && <ElementCallButton room={props.room} />}
      <MeetingButtons {...props} begins={offer === 'meeting'} />
    </>
  );
}

/** Why no call can be opened now, whichever it is. */
function useBusy(): string {
  const group = useApp((s) => s.group !== null);
  const call = useApp((s) => s.call !== null && s.call.phase !== 'ended');
  return group || call ? 'You are in another call' : '';
}

function ElementCallButton({ room }: { room: Room }) {
  const { groups } = useConnection();
  const busy = useBusy();
  const people = usePeople(room);
  const reason = groups.allowed(room) ? busy : 'This room does not let you take part in group calls';
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
      onClick={() => void groups.open(room.roomId)}
    >
      <Icon name="people" size={people ? 18 : 20} /> {people ? words : null}
    </button>
  );
}

/** A call on our own meeting page: the one that runs, or for more than two people, for whom there is m.call.*, a new one. */
function MeetingButtons({ room, name, rows, others, begins }: Props & { begins: boolean }) {
  const { groups } = useConnection();
  const busy = useBusy();
  const running = useRunning(rows);
  if (running) {
    const { call, people } = running;
    return (
      <button
        type="button"
        className="button button-call"
        aria-label={`Join the call of ${people}`}
        title={busy || `Join call (${people})`}
        disabled={Boolean(busy)}
        data-testid="room-call-join"
        data-people={people}
        onClick={() => groups.join(room.roomId, call)}
      >
        <Icon name={call.video ? 'video' : 'phone'} size={18} /> Join <span className="not-phone">call</span> ({people})
      </button>
    );
  }
  if (!begins || others < 2) return null;
  const reason = groups.refusal(room) || busy;
  return (['voice', 'video'] as const).map((kind) => {
    const words = kind === 'voice' ? 'Voice call' : 'Video call';
    return (
      <button
        key={kind}
        type="button"
        className="icon-button"
        aria-label={`${words} with everybody in ${name}`}
        title={reason || words}
        disabled={Boolean(reason)}
        data-testid={`room-call-${kind}`}
        onClick={() => void groups.meet(room.roomId, kind === 'video')}
      >
        <Icon name={kind === 'voice' ? 'phone' : 'video'} />
      </button>
    );
  });
}
