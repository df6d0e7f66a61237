// SPDX-License-Identifier: Apache-2.0
// A room's meeting as a widget: which meeting it is, the address that clients open, and the state event that tells them.

/** What a room's widgets are told in; clients read it everywhere, also where the newer `m.widget` is known. */
export const WIDGETS = 'im.vector.modular.widgets';

/** RFC 4648, lower case and without padding, which is how Jitsi's conferences of Matrix rooms are named. */
export function base32(text: string): string {
  const digits = 'abcdefghijklmnopqrstuvwxyz234567';
  let [word, bits, out] = [0, 0, ''];
  for (const byte of new TextEncoder().encode(text)) {
    word = ((word << 8) | byte) & 0xfff;
    for (bits += 8; bits >= 5; bits -= 5) out += digits[(word >> (bits - 5)) & 31];
  }
  return bits ? out + digits[(word << (5 - bits)) & 31] : out;
}

/** The name of the meeting of a room, the same for every kind of widget: members meet, whatever client they use. */
export function meetingOf(roomId: string): string {
  return base32(roomId);
}

export type WidgetKind = 'custom' | 'jitsi';

export interface WidgetState {
  stateKey: string;
  content: { type: string; url: string; name: string; id: string; creatorUserId: string; waitForIframeLoad: boolean; data: Record<string, unknown> };
}

/**
 * The state event that gives a room its meeting. `custom` is our page as it is, in any client; `jitsi` is what Element Web shows with the
 * buttons of a call: there Element brings a page of its own, which drives ours at `data.domain`.
 * `origin` is this server's, e.g. `https://example.org`.
 */
export function widgetOf(kind: WidgetKind, origin: string, roomId: string, userId: string): WidgetState {
  const name = meetingOf(roomId);
  const id = `trunkboard-${kind}-${name.slice(0, 40)}`;
  return {
    stateKey: id,
    content: {
      type: kind === 'jitsi' ? 'm.jitsi' : 'm.custom',
      url: template(origin, name),
      name: 'Meeting',
      id,
      creatorUserId: userId,
      waitForIframeLoad: true,
      data: {
        title: 'Meeting',
        ...(kind === 'jitsi' ? { conferenceId: name, domain: new URL(origin).host, roomName: name, isAudioOnly: false, auth: 'openidtoken-jwt' } : {}),
      },
    },
  };
}

/** Clients fill in the variables; what they say of a person stands in the fragment, which no server sees. */
export function template(origin: string, name: string): string {
  const fragment = [
    'room_id=$matrix_room_id',
    'display_name=$matrix_display_name',
    'avatar_url=$matrix_avatar_url',
    'theme=$org.matrix.msc2873.client_theme',
    'lang=$org.matrix.msc2873.client_language',
  ].join('&');
  return `${origin}/meet/${name}?widgetId=$matrix_widget_id#${fragment}`;
}
