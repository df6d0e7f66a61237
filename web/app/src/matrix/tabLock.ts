// SPDX-License-Identifier: Apache-2.0

/** A reload releases the lock a moment after the new page asks for it. */
const WAIT_MS = 1500;

/**
 * Holds a session for this tab: two tabs must not turn the same ratchets. Returns how to let go of it, or null when
 * another tab holds it. With `take` it is taken away from the other tab, whose `onLost` is called.
 */
export function holdSession(deviceId: string, take: boolean, onLost: () => void): Promise<(() => void) | null> {
  if (!navigator.locks) return Promise.resolve(() => {});
  return new Promise((resolve) => {
    let held = false;
    let released = false;
    navigator.locks
      .request(`trunkboard.session.${deviceId}`, take ? { steal: true } : { signal: AbortSignal.timeout(WAIT_MS) }, () => {
        held = true;
        return new Promise<void>((release) => {
          resolve(() => {
            released = true;
            release();
          });
        });
      })
      .catch(() => {
        if (!held) resolve(null);
        else if (!released) onLost();
      });
  });
}
