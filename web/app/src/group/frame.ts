// SPDX-License-Identifier: Apache-2.0
import { ClientWidgetApi, Widget, WidgetApiFromWidgetAction, type IWidgetApiRequest, type IWidgetApiRequestData, type WidgetDriver } from 'matrix-widget-api';
import { guard } from '../widget/guard.ts';

/** Actions of calls beside those of the widget API, as Element Call and our own meeting page have them. */
const JOIN = 'io.element.join';
const HANGUP = 'im.vector.hangup';
const CLOSE = 'io.element.close';
const DEVICE_MUTE = 'io.element.device_mute';

/** How long the page has for saying goodbye, in milliseconds. */
const FAREWELL_MS = 3000;

export interface FramedCallEvents {
  onJoined: () => void;
  /** The person has hung up, or the page is done; it may say why in words. */
  onOver: (why?: string) => void;
}

/** A group call of this device: a page in a frame that speaks the widget API. */
export abstract class FramedCall {
  readonly roomId: string;
  readonly url: string;
  protected api: ClientWidgetApi | null = null;
  protected over = false;
  private readonly widget: Widget;
  private readonly events: FramedCallEvents;
  private unguard: (() => void) | null = null;

  constructor(roomId: string, widget: { id: string; userId: string; type: string; url: string }, events: FramedCallEvents) {
    this.roomId = roomId;
    this.url = widget.url;
    this.events = events;
    // The page says itself when it is ready to be spoken to.
    this.widget = new Widget({ id: widget.id, creatorUserId: widget.userId, type: widget.type, url: widget.url, waitForIframeLoad: false });
  }

  /** What the page may do on behalf of the person. */
  protected abstract driver(): WidgetDriver;

  /** Connects the frame; call it before its page has loaded. */
  attach(frame: HTMLIFrameElement): void {
    if (this.api || this.over) return;
    this.unguard = guard(frame.contentWindow!, new URL(this.url).origin, 'fromWidget');
    this.api = new ClientWidgetApi(this.widget, frame, this.driver());
    this.api.setViewedRoomId(this.roomId);
    this.answer(JOIN, this.events.onJoined);
    this.answer(HANGUP, ({ errorMessage }) => this.end(typeof errorMessage === 'string' ? errorMessage : undefined));
    this.answer(CLOSE, () => this.end());
    this.answer(DEVICE_MUTE);
    this.answer(WidgetApiFromWidgetAction.UpdateAlwaysOnScreen);
    this.attached(this.api);
  }

  /** For what else a kind of call has to listen to. */
  protected attached(_api: ClientWidgetApi): void {}

  /** Answers an action of the page's, and does something about it. */
  protected answer(action: string, then?: (data: IWidgetApiRequestData) => void): void {
    this.api?.on(`action:${action}`, (event: CustomEvent<IWidgetApiRequest>) => {
      event.preventDefault();
      this.api?.transport.reply(event.detail, {});
      then?.(event.detail.data);
    });
  }

  /** Asks the page to leave the call, and ends it. */
  async hangUp(): Promise<void> {
    if (!this.api || this.over) return this.end();
    await Promise.race([this.api.transport.send(HANGUP, {}).catch(() => {}), new Promise((resolve) => setTimeout(resolve, FAREWELL_MS))]);
    this.end();
  }

  /** Takes the page away. */
  end(why?: string): void {
    if (this.over) return;
    this.over = true;
    this.detached();
    this.api?.stop();
    this.api = null;
    this.unguard?.();
    this.events.onOver(why);
  }

  /** The end of `attached`; called without it when the page was never connected. */
  protected detached(): void {}
}
