// SPDX-License-Identifier: Apache-2.0
import { dismissToast, useApp } from '../store.ts';
import { Icon } from './Icon.tsx';

export function Toasts() {
  const toasts = useApp((s) => s.toasts);
  return (
    <div className="toasts" role="status" aria-live="polite">
      {toasts.map((t) => (
        <div key={t.id} className={`toast toast-${t.tone}`} data-testid="toast">
          {t.tone === 'problem' && <Icon name="warning" />}
          <span>{t.words}</span>
          <button type="button" className="icon-button small" aria-label="Dismiss" onClick={() => dismissToast(t.id)}>
            <Icon name="close" size={16} />
          </button>
        </div>
      ))}
    </div>
  );
}
