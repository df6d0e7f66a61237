// SPDX-License-Identifier: Apache-2.0
// A product that uses Jitsi's React SDK.
import { JitsiMeeting } from '@jitsi/react-sdk';
import { createElement } from 'react';
import { createRoot } from 'react-dom/client';

window.mount = (props) => {
  const root = createRoot(document.getElementById('root'));
  root.render(createElement(JitsiMeeting, { ...props, getIFrameRef: (node) => (node.style.height = '600px') }));
};
