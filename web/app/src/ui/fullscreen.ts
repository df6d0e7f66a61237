// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from 'react';

/** Shows `element` (the whole page without it) on the whole screen, or ends that. A browser that cannot or may not does nothing. */
export function toggleFullscreen(element: Element = document.documentElement): void {
  const done = document.fullscreenElement ? document.exitFullscreen() : element.requestFullscreen?.();
  done?.catch(() => {});
}

/** Whether something fills the screen. */
export function useFullscreen(): boolean {
  const [full, setFull] = useState(false);
  useEffect(() => {
    const read = () => setFull(document.fullscreenElement !== null);
    document.addEventListener('fullscreenchange', read);
    return () => document.removeEventListener('fullscreenchange', read);
  }, []);
  return full;
}
