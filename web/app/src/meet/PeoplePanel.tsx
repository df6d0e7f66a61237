// SPDX-License-Identifier: Apache-2.0
import { memo } from 'react';
import { Avatar } from '../ui/Avatar.tsx';
import { Icon } from '../ui/Icon.tsx';
import { Face } from './Face.tsx';
import type { Person } from './control.ts';
import { Menu, type MenuEntry } from './Menu.tsx';
import { byRank } from './state.ts';
import { useMeet, useMeeting, useWords } from './use.ts';

export function PeoplePanel({ onInvite, onWrite }: { onInvite: () => void; onWrite: (id: string) => void }) {
  const meeting = useMeeting();
  const w = useWords();
  const people = useMeet((s) => s.people);
  const knocks = useMeet((s) => s.knocks);
  const host = useMeet((s) => s.me?.host === true);
  const embedded = useMeet((s) => s.options.embedded);
  return (
    <div className="meet-people" data-testid="meet-people">
      {knocks.length > 0 && (
        <section aria-labelledby="meet-knocking" data-testid="meet-knocks">
          <h3 id="meet-knocking">{w.knocking(knocks.length)}</h3>
          <ul>
            {knocks.map((k) => (
              <li key={k.userId} className="meet-person" data-testid="meet-knock">
                <Avatar id={k.userId} name={k.name} size="s" />
                <bdi>{k.name}</bdi>
                <button type="button" className="button button-small" data-testid="meet-deny" aria-label={`${w.deny}: ${k.name}`} onClick={() => meeting.tried(meeting.host.answer(k.userId, false))}>
                  {w.deny}
                </button>
                <button type="button" className="button button-small button-primary" data-testid="meet-admit" aria-label={`${w.admit}: ${k.name}`} onClick={() => meeting.tried(meeting.host.answer(k.userId, true))}>
                  {w.admit}
                </button>
              </li>
            ))}
          </ul>
        </section>
      )}
      <section aria-labelledby="meet-inside">
        <h3 id="meet-inside">{w.inMeeting(people.length)}</h3>
        <div className="meet-people-actions">
          {!embedded && (
            <button type="button" className="button button-small" onClick={onInvite}>
              <Icon name="invite" size={16} /> {w.invite}
            </button>
          )}
          {host && people.length > 1 && (
            <button type="button" className="button button-small" data-testid="meet-mute-all" onClick={() => meeting.tried(meeting.host.muteAll('audio'))}>
              <Icon name="micOff" size={16} /> {w.muteAll}
            </button>
          )}
        </div>
        <ul>
          {[...people].sort(byRank).map((p) => (
            <Row key={p.id} person={p} host={host} onWrite={onWrite} />
          ))}
        </ul>
      </section>
    </div>
  );
}

const Row = memo(function Row({ person: p, host, onWrite }: { person: Person; host: boolean; onWrite: (id: string) => void }) {
  const meeting = useMeeting();
  const w = useWords();
  const pinned = useMeet((s) => s.pinned === p.id);
  const entries: MenuEntry[] = [{ icon: 'pin', label: pinned ? w.unpin : w.pin, do: () => meeting.pin(pinned ? undefined : p.id) }];
  if (!p.local) entries.push({ icon: 'chat', label: w.writePrivately, do: () => onWrite(p.id), testid: 'person-write' });
  if (host && !p.local) {
    const h = meeting.host;
    if (p.muted.audio) entries.push({ icon: 'mic', label: w.askUnmute, do: () => meeting.tried(h.askUnmute(p.id, 'audio')), testid: 'person-ask' });
    else entries.push({ icon: 'micOff', label: w.muteOne, do: () => meeting.tried(h.mute(p.id, 'audio')), testid: 'person-mute' });
    if (p.muted.video) entries.push({ icon: 'video', label: w.askCamera, do: () => meeting.tried(h.askUnmute(p.id, 'video')) });
    else entries.push({ icon: 'videoOff', label: w.stopCamera, do: () => meeting.tried(h.mute(p.id, 'video')) });
    if (p.sharing) entries.push({ icon: 'screen', label: w.stopScreen, do: () => meeting.tried(h.mute(p.id, 'screen')) });
    entries.push({ icon: 'crown', label: p.host ? w.unmakeHost : w.makeHost, do: () => meeting.tried(p.host ? h.demote(p.id) : h.promote(p.id)), testid: 'person-promote' });
    entries.push({ icon: 'leave', label: w.kick, danger: true, do: () => meeting.tried(h.kick(p.id)), testid: 'person-kick' });
  }
  return (
    <li className="meet-person" data-testid="meet-person" data-id={p.id} data-name={p.name} data-host={p.host} data-muted={p.muted.audio}>
      <Face id={p.id} name={p.name} size="s" />
      <span className="meet-person-name">
        <bdi>{p.local ? w.youSuffix(p.name) : p.name}</bdi>
        {p.host && <small>{w.host}</small>}
      </span>
      {p.hand && (
        <span className="meet-person-hand" role="img" aria-label={w.tileHand}>
          <Icon name="hand" size={17} />
        </span>
      )}
      {!p.local && (
        <input type="range" min={0} max={100} defaultValue={100} className="meet-volume" aria-label={w.volumeOf(p.name)} title={w.volumeOf(p.name)} onChange={(e) => meeting.setVolume(p.id, Number(e.target.value) / 100)} />
      )}
      <span className={`meet-person-mic ${p.speaking ? 'speaking' : ''}`}>
        <Icon name={p.muted.audio ? 'micOff' : 'mic'} size={17} />
      </span>
      <Menu label={w.actionsFor(p.name)} className="icon-button small" entries={entries} align="end" side="below" testid="person-menu">
        <Icon name="more" size={18} />
      </Menu>
    </li>
  );
});
