// SPDX-License-Identifier: Apache-2.0

export interface GroupCallPlace {
  /** Address of Element Call's embedded build, with a slash at the end. */
  at: string;
  widgetId: string;
  roomId: string;
  userId: string;
  deviceId: string;
  /** The homeserver's address. */
  baseUrl: string;
  /** A key for each participant: in encrypted rooms. */
  encrypted: boolean;
  /** Somebody is in the call already. */
  running: boolean;
  theme: 'dark' | 'light';
  lang: string;
}

/**
 * The address at which Element Call runs as a widget (element-call, docs/url-params.md). The parameters stand in the fragment, which
 * no server sees.
 */
export function groupCallUrl(place: GroupCallPlace, parentUrl = location.href): string {
  const url = new URL('index.html', place.at);
  const parameters = new URLSearchParams({
    widgetId: place.widgetId,
    parentUrl: parentUrl.replace(/#.*$/, ''),
    roomId: place.roomId,
    userId: place.userId,
    deviceId: place.deviceId,
    baseUrl: place.baseUrl,
    intent: place.running ? 'join_existing' : 'start_call',
    perParticipantE2EE: String(place.encrypted),
    confineToRoom: 'true',
    header: 'none',
    background: 'solid',
    // Without a relay of the homeserver a call is direct or fails: no stranger's STUN server learns who calls whom.
    allowIceFallback: 'false',
    theme: place.theme,
    lang: place.lang,
  });
  url.hash = `/?${parameters}`;
  return url.href;
}
