// SPDX-License-Identifier: Apache-2.0
import { useState, type FormEvent, type ReactNode } from 'react';
import { toast, useApp } from '../store.ts';
import { Dialog } from '../ui/Dialog.tsx';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';

type Page = 'choose' | 'key' | 'over';

const close = () => useApp.setState({ confirming: false });

function words(error: unknown): string {
  const { errcode, message } = error as { errcode?: string; message?: string };
  if (errcode === 'M_FORBIDDEN') return 'That password is not right.';
  return message ? message.replace(/^MatrixError: (\[\d+\] )?/, '') : 'That did not work.';
}

/** Shows that this device belongs to the account, or sets up the encryption of an account that has none. */
export function ConfirmDevice() {
  const open = useApp((s) => s.confirming);
  const { phase } = useApp((s) => s.encryption);
  const verifying = useApp((s) => s.verification !== null && s.verification.step !== 'asked');
  if (!open || verifying) return null;
  if (phase === 'unset' || phase === 'working') return <SetUp />;
  // It stays until its own work is done: a device turns `ready` before the keys are fetched.
  return phase === 'locked' || phase === 'ready' ? <Confirm /> : null;
}

function Confirm() {
  const connection = useConnection();
  const [page, setPage] = useState<Page>('choose');
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState('');
  const [typed, setTyped] = useState('');

  const run = async (work: () => Promise<void>) => {
    setBusy(true);
    setError('');
    try {
      await work();
    } catch (problem) {
      setError(words(problem));
    }
    setBusy(false);
  };
  const turn = (next: Page) => {
    setPage(next);
    setError('');
    setTyped('');
  };
  const otherDevice = () => run(() => connection.verifications.askOwnDevices());
  const unlock = () =>
    run(async () => {
      const count = await connection.encryption.unlock(typed);
      toast(count ? `This device is confirmed, and ${count} ${count === 1 ? 'key' : 'keys'} came from the backup.` : 'This device is confirmed.');
      close();
    });
  const startOver = () =>
    run(async () => {
      await connection.encryption.startOver(typed);
      close();
    });

  if (page === 'key') {
    return (
      <Form title="Enter your recovery key" onBack={() => turn('choose')} onSubmit={unlock} busy={busy} error={error} submit="Confirm" disabled={!typed.trim()}>
        <label className="field">
          <span>Recovery key</span>
          <textarea autoFocus rows={3} className="recovery-input" data-testid="unlock-key" autoComplete="off" autoCapitalize="none" spellCheck={false} placeholder="EsTx ..." value={typed} onChange={(e) => setTyped(e.target.value)} />
          <small>The 12 groups of letters and digits that you saved when you made your account.</small>
        </label>
      </Form>
    );
  }
  if (page === 'over') {
    return (
      <Form title="Start over" onBack={() => turn('choose')} onSubmit={startOver} busy={busy} error={error} submit="Start over" disabled={!typed}>
        <p className="dialog-words">You get a new identity and a new recovery key. Messages that only the old key opens are lost for good, and people who verified you are told that you changed.</p>
        <label className="field">
          <span>Your password</span>
          <input autoFocus type="password" autoComplete="current-password" data-testid="over-password" value={typed} onChange={(e) => setTyped(e.target.value)} />
        </label>
      </Form>
    );
  }
  return (
    <Dialog title="Confirm this device" onClose={close} testid="confirm-dialog">
      <p className="dialog-words">Show that it is you, and this device can read your earlier messages. Others will see it as yours.</p>
      <div className="choices">
        <Choice icon="device" title="Use another device" detail="Compare emojis with a device where you are signed in" disabled={busy} testid="confirm-other" onClick={() => void otherDevice()} />
        <Choice icon="key" title="Enter recovery key" detail="The key you saved when you made your account" disabled={busy} testid="confirm-key" onClick={() => turn('key')} />
      </div>
      {error && (
        <p className="callout callout-problem" role="alert">
          {error}
        </p>
      )}
      <footer className="dialog-foot dialog-foot-split">
        <button type="button" className="link" onClick={() => turn('over')} data-testid="confirm-over">
          I have neither
        </button>
        <button type="button" className="button" onClick={close} data-testid="confirm-skip">
          Skip for now
        </button>
      </footer>
    </Dialog>
  );
}

function SetUp() {
  const connection = useConnection();
  const [password, setPassword] = useState('');
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState('');
  const submit = async () => {
    setBusy(true);
    setError('');
    try {
      await connection.encryption.setUp(password);
      close();
    } catch (problem) {
      setError(words(problem));
      setBusy(false);
    }
  };
  return (
    <Form title="Set up encryption" onBack={close} back="Later" onSubmit={submit} busy={busy} error={error} submit="Set up" disabled={!password}>
      <p className="dialog-words">You get a recovery key, with which you can read your messages on a new device.</p>
      <label className="field">
        <span>Your password</span>
        <input autoFocus type="password" autoComplete="current-password" data-testid="setup-password" value={password} onChange={(e) => setPassword(e.target.value)} />
      </label>
    </Form>
  );
}

interface FormProps {
  title: string;
  onBack: () => void;
  back?: string;
  onSubmit: () => Promise<void>;
  busy: boolean;
  error: string;
  submit: string;
  disabled: boolean;
  children: ReactNode;
}

function Form({ title, onBack, back = 'Back', onSubmit, busy, error, submit, disabled, children }: FormProps) {
  return (
    <Dialog title={title} onClose={close} testid="confirm-form">
      <form
        onSubmit={(e: FormEvent) => {
          e.preventDefault();
          void onSubmit();
        }}
      >
        {children}
        {error && (
          <p className="callout callout-problem" role="alert" data-testid="confirm-error">
            {error}
          </p>
        )}
        <footer className="dialog-foot">
          <button type="button" className="button" onClick={onBack} disabled={busy}>
            {back}
          </button>
          <button type="submit" className="button button-primary" disabled={busy || disabled} data-testid="confirm-submit">
            {busy ? <span className="spinner" aria-label="Working" /> : submit}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

interface ChoiceProps {
  icon: 'device' | 'key';
  title: string;
  detail: string;
  disabled: boolean;
  testid: string;
  onClick: () => void;
}

function Choice({ icon, title, detail, disabled, testid, onClick }: ChoiceProps) {
  return (
    <button type="button" className="choice" disabled={disabled} onClick={onClick} data-testid={testid}>
      <Icon name={icon} size={22} />
      <span>
        <strong>{title}</strong>
        <small>{detail}</small>
      </span>
    </button>
  );
}
