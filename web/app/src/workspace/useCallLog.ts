// SPDX-License-Identifier: Apache-2.0
import { MatrixEventEvent, Method, RoomEvent, type MatrixClient, type MatrixEvent } from 'matrix-js-sdk';
import { useCallback, useEffect, useMemo, useState } from 'react';
import { type LoggedCall, merged, pageOf } from '../matrix/callLog.ts';
import { callIdOf, summariseCall } from '../matrix/callTile.ts';
import { raw } from '../matrix/convert.ts';
import type { RawEvent } from '../matrix/raw.ts';
import { useConnection } from './context.ts';

/** Calls that are asked for at once. */
const PAGE = 50;
/** A call ends in several events, and the server writes its record after them. */
const SETTLE_MS = 700;

/** The calls in what this device has of its rooms' timelines: the only list there is of calls of two in encrypted rooms. */
function ownCalls(client: MatrixClient, me: string, now: number): LoggedCall[] {
  const found: LoggedCall[] = [];
  for (const room of client.getRooms()) {
    const calls = new Map<string, RawEvent[]>();
    for (const event of room.getLiveTimeline().getEvents()) {
      if (!event.getType().startsWith('m.call.')) continue;
      const plain = raw(event);
      const id = callIdOf(plain);
      if (id) calls.set(id, [...(calls.get(id) ?? []), plain]);
    }
    for (const events of calls.values()) {
      const call = summariseCall(events, me, now);
      if (!call || call.outcome === 'ringing' || call.outcome === 'ongoing') continue;
      const outgoing = call.caller === me;
      const peer = outgoing ? room.getMembers().find((m) => m.userId !== me)?.userId : call.caller;
      found.push({ ...call, roomId: room.roomId, outgoing, peer });
    }
  }
  return found;
}

export interface CallLog {
  calls: LoggedCall[];
  state: 'loading' | 'ready' | 'failed';
  /** Asks for older ones; undefined when there are none. */
  more?: () => void;
  again: () => void;
}

/** The calls of the signed-in person; follows what happens. `missed` asks for missed ones alone. */
export function useCallLog(missed: boolean): CallLog {
  const { client, userId } = useConnection();
  const [recorded, setRecorded] = useState<LoggedCall[]>([]);
  const [next, setNext] = useState<string>();
  const [state, setState] = useState<CallLog['state']>('loading');
  const [revision, setRevision] = useState(0);

  const ask = useCallback(
    async (from?: string) => {
      const query: Record<string, string> = { limit: String(PAGE) };
      if (missed) query.outcome = 'missed';
      if (from) query.from = from;
      return pageOf(await client.http.authedRequest<unknown>(Method.Get, '/calls', query, undefined, { prefix: '/_trunkboard/client/v1' }));
    },
    [client, missed],
  );

  useEffect(() => {
    let stale = false;
    ask().then(
      (page) => {
        if (stale) return;
        setRecorded(page.calls);
        setNext(page.next);
        setState('ready');
      },
      () => !stale && setState('failed'),
    );
    return () => {
      stale = true;
    };
  }, [ask, revision]);

  useEffect(() => {
    let timer = 0;
    const look = (event: MatrixEvent) => {
      if (!event.getType().startsWith('m.call.')) return;
      clearTimeout(timer);
      timer = window.setTimeout(() => setRevision((n) => n + 1), SETTLE_MS);
    };
    client.on(RoomEvent.Timeline, look as never);
    client.on(MatrixEventEvent.Decrypted, look as never);
    return () => {
      clearTimeout(timer);
      client.off(RoomEvent.Timeline, look as never);
      client.off(MatrixEventEvent.Decrypted, look as never);
    };
  }, [client]);

  const calls = useMemo(() => {
    const own = ownCalls(client, userId, Date.now());
    const oldest = next ? (recorded[recorded.length - 1]?.startedAt ?? 0) : 0;
    const all = merged(recorded, own, oldest);
    return missed ? all.filter((c) => c.outcome === 'missed') : all;
  }, [client, userId, recorded, next, missed, revision]);

  const more = next
    ? () => {
        ask(next).then(
          (page) => {
            setRecorded((before) => [...before, ...page.calls]);
            setNext(page.next);
          },
          () => setState('failed'),
        );
      }
    : undefined;
  const again = () => {
    setState('loading');
    setRevision((n) => n + 1);
  };
  return { calls, state, more, again };
}
