// SPDX-License-Identifier: Apache-2.0
// Line icons on a 24-unit grid, drawn for this app.

const PATHS = {
  phone: 'M6.6 3.8h2.1c.5 0 .9.3 1 .8l.8 3.2c.1.4 0 .8-.3 1.1L8.5 10.5a12.5 12.5 0 0 0 5 5l1.6-1.7c.3-.3.7-.4 1.1-.3l3.2.8c.5.1.8.5.8 1v2.1a1.9 1.9 0 0 1-2 1.9C10.9 18.8 5.2 13.1 4.7 5.8a1.9 1.9 0 0 1 1.9-2Z',
  video: 'M4.5 6.5h8.5a2 2 0 0 1 2 2v7a2 2 0 0 1-2 2H4.5a2 2 0 0 1-2-2v-7a2 2 0 0 1 2-2ZM15 10.6l5.3-3.1c.5-.3 1.2 0 1.2.6v7.8c0 .6-.7.9-1.2.6L15 13.4',
  videoOff: 'M9 6.5h4a2 2 0 0 1 2 2v2.1l5.3-3.1c.5-.3 1.2 0 1.2.6v7.8c0 .4-.3.7-.7.7M14.8 16.4a2 2 0 0 1-1.8 1.1H4.5a2 2 0 0 1-2-2v-7c0-.9.6-1.7 1.5-1.9M3 3l18 18',
  mic: 'M12 3.5a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0v-5a3 3 0 0 0-3-3ZM5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v2.8M8.8 20.8h6.4',
  micOff: 'M15 9.5v-3a3 3 0 0 0-5.7-1.3M9 9v2.5a3 3 0 0 0 4.6 2.5M18.5 11.5a6.4 6.4 0 0 1-.7 2.9M5.5 11.5a6.5 6.5 0 0 0 10.3 5.3M12 18v2.8M8.8 20.8h6.4M3.5 3.5l17 17',
  screen: 'M4.5 4.5h15a2 2 0 0 1 2 2v8.5a2 2 0 0 1-2 2h-15a2 2 0 0 1-2-2V6.5a2 2 0 0 1 2-2ZM8.5 20.5h7M12 13.5V8M9.5 10.3L12 7.8l2.5 2.5',
  settings: 'M4 7.5h9M17.5 7.5H20M4 16.5h2.5M11 16.5h9M15.2 5.3a2.2 2.2 0 1 1 0 4.4 2.2 2.2 0 0 1 0-4.4ZM8.8 14.3a2.2 2.2 0 1 1 0 4.4 2.2 2.2 0 0 1 0-4.4Z',
  expand: 'M9 4.5H4.5V9M15 4.5h4.5V9M9 19.5H4.5V15M15 19.5h4.5V15',
  shrink: 'M4.5 9H9V4.5M19.5 9H15V4.5M4.5 15H9v4.5M19.5 15H15v4.5',
  minimise: 'M19.5 4.5l-6 6M13.5 5.5v5h5M4.5 19.5l6-6M10.5 18.5v-5h-5',
  plus: 'M12 5v14M5 12h14',
  people: 'M9 11.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7ZM2.8 19.5c.3-3.3 2.9-5.3 6.2-5.3s5.9 2 6.2 5.3M15.8 4.9a3.5 3.5 0 0 1 0 6.2M18 14.8c1.8.8 3 2.5 3.2 4.7',
  chat: 'M4.8 4.5h14.4a2.3 2.3 0 0 1 2.3 2.3v8.4a2.3 2.3 0 0 1-2.3 2.3h-7L7.5 20.7v-3.2H4.8a2.3 2.3 0 0 1-2.3-2.3V6.8a2.3 2.3 0 0 1 2.3-2.3Z',
  hash: 'M9.5 4L7.5 20M16.5 4l-2 16M4.5 9h16M3.5 15h16',
  search: 'M10.8 17.1a6.3 6.3 0 1 0 0-12.6 6.3 6.3 0 0 0 0 12.6ZM15.5 15.5l4.5 4.5',
  send: 'M20.5 3.5L10.3 13.7M20.5 3.5l-6.3 17-3.9-6.8-6.8-3.9 17-6.3Z',
  attach: 'M20 11.5l-8 8a5 5 0 0 1-7.1-7.1l8.5-8.5a3.4 3.4 0 0 1 4.8 4.8l-8.4 8.4a1.7 1.7 0 0 1-2.4-2.4l7.6-7.6',
  back: 'M14.5 5.5L8 12l6.5 6.5',
  close: 'M6 6l12 12M18 6L6 18',
  check: 'M4.8 12.8l4.7 4.7L19.5 7',
  trash: 'M4.5 6.5h15M9.5 6.5v-2h5v2M6.5 6.5l.8 12a1.8 1.8 0 0 0 1.8 1.7h5.8a1.8 1.8 0 0 0 1.8-1.7l.8-12M10.3 10.5v5.5M13.7 10.5v5.5',
  retry: 'M19.5 12a7.5 7.5 0 1 1-2.2-5.3L19.5 9M19.5 4.5V9H15',
  file: 'M13.5 3.5H7a2 2 0 0 0-2 2v13a2 2 0 0 0 2 2h10a2 2 0 0 0 2-2V9l-5.5-5.5ZM13.5 3.5V9H19',
  download: 'M12 4v11M7.5 11l4.5 4.5 4.5-4.5M4.5 20h15',
  leave: 'M10 4.5H6.5a2 2 0 0 0-2 2v11a2 2 0 0 0 2 2H10M15 8l4 4-4 4M19 12H9.5',
  lock: 'M7 10.5h10a2 2 0 0 1 2 2v6a2 2 0 0 1-2 2H7a2 2 0 0 1-2-2v-6a2 2 0 0 1 2-2ZM8 10.5V8a4 4 0 0 1 8 0v2.5',
  invite: 'M10 11.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7ZM3.5 19.5c.3-3.3 3-5.3 6.5-5.3 1.3 0 2.5.3 3.5.8M18 14v6M15 17h6',
  speaker: 'M4 9.5h3.5L12 5.5v13l-4.5-4H4a1 1 0 0 1-1-1v-3a1 1 0 0 1 1-1ZM15.5 9a4.2 4.2 0 0 1 0 6M18 6.5a7.8 7.8 0 0 1 0 11',
  warning: 'M12 4.5l8.8 15H3.2L12 4.5ZM12 10v4.5M12 17v.2',
  missed: 'M5 5l6.5 6.5L19 4M5 5v4.5M5 5h4.5M3.5 17.5l-.5-1.3c-.1-.4 0-.8.3-1 5.2-3.6 12.2-3.6 17.4 0 .3.2.4.6.3 1l-.5 1.3c-.2.4-.6.7-1 .6l-2.3-.4c-.4-.1-.7-.4-.8-.7l-.3-1.5a12 12 0 0 0-8.2 0l-.3 1.5c-.1.3-.4.6-.8.7l-2.3.4c-.4.1-.8-.2-1-.6Z',
} as const;

export type IconName = keyof typeof PATHS | 'hangup';

/** Decorative; the control around it carries the label. */
export function Icon({ name, size = 20 }: { name: IconName; size?: number }) {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={name === 'hangup' ? PATHS.phone : PATHS[name]} transform={name === 'hangup' ? 'rotate(135 12 12)' : undefined} fill="none" stroke="currentColor" strokeWidth="1.7" strokeLinecap="round" strokeLinejoin="round" />
    </svg>
  );
}

export function Logo({ size = 28 }: { size?: number }) {
  return <img src="/icon.svg" width={size} height={size} alt="" />;
}
