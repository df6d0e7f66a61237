// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from 'react';
import { Avatar } from '../ui/Avatar.tsx';
import { useMeet, useMeeting } from './use.ts';

/** Somebody in the meeting: the picture that they chose, or their initials. */
export function Face({ id, name, size }: { id: string; name: string; size: 's' | 'xl' }) {
  const meeting = useMeeting();
  const chosen = useMeet((s) => s.people.find((p) => p.id === id)?.avatarUrl);
  const [picture, setPicture] = useState<string>();
  useEffect(() => {
    setPicture(undefined);
    if (!chosen) return;
    let stale = false;
    void meeting.face(chosen).then((address) => !stale && setPicture(address));
    return () => {
      stale = true;
    };
  }, [meeting, chosen]);
  return <Avatar id={id} name={name} size={size} picture={picture} />;
}
