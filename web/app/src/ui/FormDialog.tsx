// SPDX-License-Identifier: Apache-2.0
import { useState, type FormEvent, type ReactNode } from 'react';
import { wentWrong } from '../matrix/wrong.ts';
import { Dialog } from './Dialog.tsx';

interface Props {
  title: string;
  testid: string;
  /** What the button that sends the form says. */
  action: string;
  actionTestid: string;
  /** False while something is missing. */
  ready: boolean;
  /** Does what the dialog is for; throws what went wrong, `Refusal` for a text of its own. The dialog closes when it is done. */
  onSubmit: () => Promise<void>;
  onClose: () => void;
  /** The fields; `perform` starts something else than the form's own button would, and `busy` says that something has started. */
  children: ReactNode | ((busy: boolean, perform: (work: () => Promise<void>) => void) => ReactNode);
}

/** Something the person can put right, in words for them. */
export class Refusal extends Error {}

/** A dialog around a form with two buttons: cancel, and the one it is for. */
export function FormDialog({ title, testid, action, actionTestid, ready, onSubmit, onClose, children }: Props) {
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);

  const perform = async (work: () => Promise<void>) => {
    if (busy) return;
    setBusy(true);
    setError('');
    try {
      await work();
      onClose();
    } catch (problem) {
      setError(wentWrong(problem));
      setBusy(false);
    }
  };

  return (
    <Dialog title={title} onClose={onClose} testid={testid}>
      <form
        onSubmit={(event: FormEvent) => {
          event.preventDefault();
          void perform(onSubmit);
        }}
      >
        {typeof children === 'function' ? children(busy, (work) => void perform(work)) : children}
        {error && (
          <p className="callout callout-problem" role="alert">
            {error}
          </p>
        )}
        <footer className="dialog-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button button-primary" disabled={busy || !ready} data-testid={actionTestid}>
            {action}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
