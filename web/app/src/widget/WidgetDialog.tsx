// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from 'react';
import type { Room } from 'matrix-js-sdk';
import { wentWrong } from '../matrix/wrong.ts';
import { toast } from '../store.ts';
import { Dialog } from '../ui/Dialog.tsx';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';
import { WIDGETS, widgetOf, type WidgetKind } from './address.ts';

const KINDS: { kind: WidgetKind; title: string; words: string }[] = [
  { kind: 'custom', title: 'Meeting', words: 'Our meeting page beside the chat, in every client that shows widgets.' },
  { kind: 'jitsi', title: 'Element’s call', words: 'Element Web shows it with the buttons of its own video conferences.' },
];

/** Gives a room its meeting as a widget, and takes it away again. */
export function WidgetDialog({ room, onClose }: { room: Room; onClose: () => void }) {
  const { client, userId } = useConnection();
  const [there, setThere] = useState<Record<WidgetKind, boolean>>();
  const [problem, setProblem] = useState('');
  const [busy, setBusy] = useState(false);
  const allowed = room.currentState.maySendStateEvent(WIDGETS, userId);
  const widget = (kind: WidgetKind) => widgetOf(kind, location.origin, room.roomId, userId);

  useEffect(() => {
    let here = true;
    const has = (kind: WidgetKind) =>
      client.getStateEvent(room.roomId, WIDGETS, widgetOf(kind, location.origin, room.roomId, userId).stateKey).then(
        (content) => Boolean(content.url),
        () => false,
      );
    void Promise.all([has('custom'), has('jitsi')]).then(([custom, jitsi]) => here && setThere({ custom, jitsi }));
    return () => {
      here = false;
    };
  }, [client, room.roomId, userId]);

  const change = async (kind: WidgetKind, on: boolean) => {
    setBusy(true);
    setProblem('');
    try {
      const { stateKey, content } = widget(kind);
      await client.sendStateEvent(room.roomId, WIDGETS as never, (on ? content : {}) as never, stateKey);
      setThere((now) => now && { ...now, [kind]: on });
    } catch (error) {
      setProblem(wentWrong(error));
    }
    setBusy(false);
  };
  const copy = () => void navigator.clipboard.writeText(widget('custom').content.url).then(() => toast('Copied.'), () => toast('The address could not be copied.', 'problem'));

  return (
    <Dialog title="Meeting in this room" onClose={onClose} testid="widget-dialog">
      <p>A widget lets the members of this room meet from the Matrix client that they use. Who is not in the room stays out.</p>
      <ul className="widget-kinds" aria-busy={!there}>
        {there &&
          KINDS.map(({ kind, title, words }) => (
            <li key={kind}>
              <label>
                <input type="checkbox" checked={there[kind]} disabled={busy || !allowed} data-testid={`widget-${kind}`} onChange={(e) => void change(kind, e.target.checked)} />
                <span>
                  <strong>{title}</strong>
                  <small>{words}</small>
                </span>
              </label>
            </li>
          ))}
      </ul>
      {!allowed && <p className="callout">Widgets of this room are up to its moderators.</p>}
      {problem && (
        <p className="callout callout-problem" role="alert">
          {problem}
        </p>
      )}
      <label className="field">
        <span>Address for a custom widget of other clients</span>
        <input readOnly value={widget('custom').content.url} data-testid="widget-address" onFocus={(e) => e.target.select()} />
      </label>
      <footer className="dialog-foot">
        <button type="button" className="button" onClick={copy}>
          <Icon name="copy" size={18} /> Copy the address
        </button>
        <button type="button" className="button button-primary" onClick={onClose}>
          Done
        </button>
      </footer>
    </Dialog>
  );
}
