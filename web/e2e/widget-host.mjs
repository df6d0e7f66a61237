// SPDX-License-Identifier: Apache-2.0
// A Matrix client as far as a widget sees one: `window.show(definition, who)` puts the widget into the page. Bundled for widget.test.mjs.
import { ClientWidgetApi, OpenIDRequestState, Widget, WidgetDriver } from 'matrix-widget-api';

class Driver extends WidgetDriver {
  constructor(token, grant) {
    super();
    this.token = token;
    this.grant = grant;
  }

  async validateCapabilities(requested) {
    window.requested = [...requested];
    return this.grant ? requested : new Set();
  }

  askOpenID(observer) {
    observer.update(this.token ? { state: OpenIDRequestState.Allowed, token: this.token } : { state: OpenIDRequestState.Blocked });
  }
}

window.heard = [];
window.show = (definition, { roomId, userId, displayName, token, grant = true }) => {
  const widget = new Widget(definition);
  const url = new URL(widget.getCompleteUrl({ widgetRoomId: roomId, currentUserId: userId, userDisplayName: displayName, clientTheme: 'light', clientLanguage: 'en' }));
  url.searchParams.set('widgetId', widget.id);
  url.searchParams.set('parentUrl', location.href);
  const frame = document.createElement('iframe');
  frame.allow = 'camera; microphone; display-capture; autoplay';
  frame.style.cssText = 'width:960px;height:640px;border:0';
  document.getElementById('root').append(frame);
  const api = new ClientWidgetApi(widget, frame, new Driver(token, grant));
  for (const action of ['io.element.join', 'im.vector.hangup', 'io.element.close', 'io.element.device_mute', 'io.element.participants', 'io.element.tile_layout', 'io.element.spotlight_layout', 'set_always_on_screen']) {
    api.on(`action:${action}`, (e) => {
      e.preventDefault();
      window.heard.push({ name: action, data: e.detail.data });
      api.transport.reply(e.detail, {});
    });
  }
  api.on('ready', () => (window.ready = true));
  window.api = api;
  frame.src = url.href;
};
