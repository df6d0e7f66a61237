// SPDX-License-Identifier: Apache-2.0
import { memo, useEffect, useRef, useState } from 'react';
import { Icon } from '../ui/Icon.tsx';
import { Face } from './Face.tsx';
import type { Person } from './control.ts';
import { useMeet, useMeeting, useWords } from './use.ts';

export interface Seen {
  person: Person;
  what: 'camera' | 'screen';
}

interface Props {
  person: Person;
  what?: 'camera' | 'screen';
  big?: boolean;
  /** In pixels; absent fills what is around it. */
  width?: number;
  height?: number;
}

/** One person's picture, or screen. Drawn again only when something about this one changes. */
export const Tile = memo(function Tile({ person, what = 'camera', big = false, width, height }: Props) {
  const meeting = useMeeting();
  const w = useWords();
  const key = useMeet((s) => s.pictures[person.id]?.[what]);
  const pinned = useMeet((s) => s.pinned === person.id);
  const hideSelf = useMeet((s) => s.options.hideSelf === true);
  const video = useRef<HTMLVideoElement>(null);
  const [moving, setMoving] = useState(false);
  const shows = key !== undefined && !(hideSelf && person.local && what === 'camera');

  useEffect(() => {
    const element = video.current;
    if (!element || !shows) return;
    const detach = meeting.attach(person.id, what, element);
    return () => {
      detach();
      setMoving(false);
    };
  }, [meeting, person.id, what, key, shows]);

  const label = what === 'screen' ? (person.local ? w.yourScreen : w.screenOf(person.name)) : person.local ? w.youSuffix(person.name) : person.name;
  const state = [person.muted.audio && what === 'camera' && w.tileMuted, person.hand && w.tileHand, (person.quality === 'poor' || person.quality === 'lost') && w.weak, person.host && w.host].filter(Boolean).join(', ');
  const upright = person.local && what === 'camera';
  return (
    <article
      className={`meet-tile ${person.speaking && what === 'camera' ? 'speaking' : ''} ${what === 'screen' ? 'screen' : ''} ${big ? 'big' : ''}`}
      style={width ? { width, height } : undefined}
      aria-label={state ? `${label}, ${state}` : label}
      data-testid="tile"
      data-id={person.id}
      data-name={person.name}
      data-what={what}
      data-video={shows && moving}
      onDoubleClick={() => meeting.pin(pinned ? undefined : person.id)}
    >
      {shows && <video ref={video} className={upright ? 'mirrored' : ''} autoPlay playsInline muted aria-label={what === 'screen' ? label : w.pictureOf(person.name)} onPlaying={() => setMoving(true)} />}
      {!(shows && moving) && (
        <div className={`meet-faceless hue-${hue(person.id)}`}>
          <Face id={person.id} name={person.name} size="xl" />
        </div>
      )}
      {person.hand && what === 'camera' && (
        <span className="meet-tile-hand" data-testid="tile-hand">
          <Icon name="hand" size={20} />
        </span>
      )}
      <div className="meet-tile-name">
        {what === 'camera' && person.muted.audio && <Icon name="micOff" size={15} />}
        {what === 'screen' && <Icon name="screen" size={15} />}
        {person.host && what === 'camera' && <Icon name="crown" size={14} />}
        {(person.quality === 'poor' || person.quality === 'lost') && <Icon name="warning" size={14} />}
        <bdi>{label}</bdi>
      </div>
      <button type="button" className="meet-tile-pin" aria-label={`${pinned ? w.unpin : w.pin}: ${label}`} title={pinned ? w.unpin : w.pin} aria-pressed={pinned} onClick={() => meeting.pin(pinned ? undefined : person.id)}>
        <Icon name="pin" size={18} />
      </button>
    </article>
  );
});

function hue(id: string): number {
  let hash = 0;
  for (const char of id) hash = (hash * 31 + char.codePointAt(0)!) >>> 0;
  return hash % 8;
}
