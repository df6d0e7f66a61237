// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef } from 'react';
import { dismissToast, useApp } from '../store.ts';
import { Icon } from './Icon.tsx';

export function Toasts() {
  const toasts = useApp((s) => s.toasts);
  const ref = useRef<HTMLDivElement>(null);
  const newest = toasts.at(-1)?.id;
  // Dialogs lie in the browser's top layer, over everything else; a popover shown after them lies above.
  useEffect(() => {
    const el = ref.current;
    if (!el?.showPopover) return;
    if (el.matches(':popover-open')) el.hidePopover();
    if (newest !== undefined) el.showPopover();
  }, [newest]);
  return (
    <div ref={ref} className="toasts" popover="manual" role="status" aria-live="polite">
      {toasts.map((t) => (
        <div key={t.id} className={`toast toast-${t.tone}`} data-testid="toast">
          {t.tone === 'problem' && <Icon name="warning" />}
          <span>{t.words}</span>
          {t.action && (
            <button
              type="button"
              className="button button-small button-primary"
              data-testid="toast-action"
              onClick={() => {
                dismissToast(t.id);
                t.action?.do();
              }}
            >
              {t.action.label}
            </button>
          )}
          <button type="button" className="icon-button small" aria-label="Dismiss" onClick={() => dismissToast(t.id)}>
            <Icon name="close" size={16} />
          </button>
        </div>
      ))}
    </div>
  );
}
