// SPDX-License-Identifier: Apache-2.0
import type { MeetingEvent, Person } from './control.ts';

/** What happened between two looks at the people of a meeting. */
export function differences(before: Person[], after: Person[]): MeetingEvent[] {
  const old = new Map(before.map((p) => [p.id, p]));
  const now = new Set(after.map((p) => p.id));
  const events: MeetingEvent[] = [];
  for (const p of before) if (!now.has(p.id) && !p.local) events.push({ type: 'went', person: p });
  for (const p of after) {
    const was = old.get(p.id);
    if (was === p) continue;
    if (!was) {
      // The first look is no arrival: everybody was there already.
      if (!p.local && before.length > 0) events.push({ type: 'came', person: p });
      continue;
    }
    if (was.name !== p.name) events.push({ type: 'name', id: p.id, name: p.name });
    for (const kind of ['audio', 'video'] as const) if (was.muted[kind] !== p.muted[kind]) events.push({ type: 'muted', kind, muted: p.muted[kind], id: p.id });
    if (was.sharing !== p.sharing) events.push({ type: 'sharing', on: p.sharing, id: p.id });
    if (was.hand !== p.hand) events.push({ type: 'hand', id: p.id, raised: p.hand });
    if (was.host !== p.host) events.push({ type: 'role', id: p.id, host: p.host });
    if (was.quality !== p.quality) events.push({ type: 'quality', id: p.id });
  }
  return events;
}
