// SPDX-License-Identifier: Apache-2.0
// The call of a room on our own meeting page, where the operator has put no Element Call.
import { WidgetDriver } from 'matrix-widget-api';
import type { DeviceChoice } from '../calls/devices.ts';
import type { RoomCall } from '../matrix/roomCall.ts';
import { FramedCall, type FramedCallEvents } from './frame.ts';

const PARTICIPANTS = 'io.element.participants';
const STAYS = 'm.always_on_screen';

/** The page is ours, and knows from the browser's session who we are: it may stay on the screen, and needs nothing else. */
class Driver extends WidgetDriver {
  override validateCapabilities(requested: Set<string>): Promise<Set<string>> {
    return Promise.resolve(new Set([...requested].filter((capability) => capability === STAYS)));
  }
}

export interface RoomCallPlace {
  roomId: string;
  call: RoomCall;
  /** We begin it, and go straight in: nobody is there to see us. */
  begins: boolean;
  userId: string;
  displayName: string;
  /** What the call is about: the room's name. */
  subject: string;
  devices: DeviceChoice;
}

/** The address of the meeting page as the widget of a call. What stands in the fragment no server sees. */
export function roomCallUrl({ call, begins, displayName, subject, devices }: RoomCallPlace, widgetId: string, parent = location.href): string {
  const url = new URL(call.url);
  url.search = String(new URLSearchParams({ widgetId, parentUrl: parent.replace(/#.*$/, '') }));
  const said = Object.entries({
    key: call.key,
    call: 'true',
    display_name: displayName,
    'config.subject': JSON.stringify(subject),
    'config.prejoinConfig.enabled': String(!begins),
    'config.startWithVideoMuted': String(!call.video),
    'devices.audioInput': devices.mic && JSON.stringify(devices.mic),
    'devices.audioOutput': devices.speaker && JSON.stringify(devices.speaker),
    'devices.videoInput': devices.camera && JSON.stringify(devices.camera),
  });
  url.hash = said.flatMap(([name, value]) => (value ? [`${name}=${encodeURIComponent(value)}`] : [])).join('&');
  return url.href;
}

/** Our own meeting page in a frame. `onPeople` tells how many are in it, while we are. */
export class RoomCallFrame extends FramedCall {
  readonly call: RoomCall;
  private readonly onPeople: (people: number) => void;

  constructor(place: RoomCallPlace, events: FramedCallEvents & { onPeople: (people: number) => void }) {
    const id = `trunkboard-call-${crypto.randomUUID()}`;
    super(place.roomId, { id, userId: place.userId, type: 'm.custom', url: roomCallUrl(place, id) }, events);
    this.call = place.call;
    this.onPeople = events.onPeople;
  }

  protected driver(): WidgetDriver {
    return new Driver();
  }

  protected override attached(): void {
    this.answer(PARTICIPANTS, ({ participants }) => Array.isArray(participants) && this.onPeople(participants.length));
  }
}
