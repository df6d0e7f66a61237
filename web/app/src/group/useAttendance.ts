// SPDX-License-Identifier: Apache-2.0
import { useCallback, useMemo, useReducer, useEffect, useSyncExternalStore } from 'react';
import { LONGEST_MS, roomCallOf, type RoomCall } from '../matrix/roomCall.ts';
import type { TimelineRow } from '../matrix/timeline.ts';
import { useConnection } from '../workspace/context.ts';
import type { Attendance } from './attendance.ts';

/** A room's newest calls that are asked after: somebody may have begun one while another runs. */
const NEWEST = 3;

/** How many are in a call; 'over' without asking for one that is too old, undefined for one that cannot be asked. */
export function useAttendance(call: RoomCall, at: number): Attendance {
  const { attendances } = useConnection().groups;
  const { name, here } = call;
  const old = Date.now() - at > LONGEST_MS;
  const watch = useCallback((f: () => void) => (here && !old ? attendances.watch(name, f) : () => {}), [attendances, name, here, old]);
  const known = useSyncExternalStore(watch, () => attendances.of(name));
  return old ? 'over' : here ? known : undefined;
}

/** The newest call of a room that somebody is in, among the rows of its timeline. */
export function useRunning(rows: TimelineRow[]): { call: RoomCall; people: number } | undefined {
  const { userId, groups } = useConnection();
  const { attendances } = groups;
  const [, changed] = useReducer((n: number) => n + 1, 0);
  const calls = useMemo(() => {
    const found: RoomCall[] = [];
    for (const row of [...rows].reverse()) {
      if (row.kind !== 'message' || Date.now() - row.event.ts > LONGEST_MS) continue;
      const call = roomCallOf(row.event, userId);
      if (call?.here) found.push(call);
      if (found.length === NEWEST) break;
    }
    return found;
  }, [rows, userId]);
  const names = calls.map((call) => call.name).join(' ');
  useEffect(() => {
    const stops = names.split(' ').filter(Boolean).map((name) => attendances.watch(name, changed));
    return () => stops.forEach((stop) => stop());
  }, [attendances, names]);
  for (const call of calls) {
    const people = attendances.of(call.name);
    if (typeof people === 'number' && people > 0) return { call, people };
  }
  return undefined;
}
