// SPDX-License-Identifier: Apache-2.0
import { colourOf, initials } from '../matrix/names.ts';
import type { Presence } from '../matrix/roomItem.ts';
import { Icon } from './Icon.tsx';

const COLOURS = 8;

const PRESENCE_WORDS: Partial<Record<Presence, string>> = { online: 'online', unavailable: 'away', offline: 'offline' };

interface Props {
  /** A user or room id: decides the colour. */
  id: string;
  name: string;
  size?: 'xs' | 's' | 'm' | 'l' | 'xl';
  room?: boolean;
  presence?: Presence;
  /** Address of a picture that is shown instead of initials. */
  picture?: string;
}

export function Avatar({ id, name, size = 'm', room = false, presence, picture }: Props) {
  const words = presence && PRESENCE_WORDS[presence];
  return (
    <span className={`avatar avatar-${size} hue-${colourOf(id, COLOURS)} ${room ? 'avatar-room' : ''}`}>
      {picture ? <img src={picture} alt="" data-testid="face" /> : <span aria-hidden="true">{room ? <Icon name="hash" size={18} /> : initials(name)}</span>}
      {words && <span className={`presence presence-${presence}`} role="img" aria-label={words} title={words} />}
    </span>
  );
}
