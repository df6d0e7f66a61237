// SPDX-License-Identifier: Apache-2.0
import { useState } from 'react';
import { useApp } from '../store.ts';
import { Avatar } from '../ui/Avatar.tsx';
import { Dialog } from '../ui/Dialog.tsx';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';
import type { UserTrust } from './useTrust.ts';

interface Props {
  roomId: string;
  userId: string;
  name: string;
  trust: UserTrust;
  /** False while the person has not joined yet. */
  here: boolean;
  onClose: () => void;
}

/** What we know of the other person's identity, and how to make sure of it. */
export function PersonDialog({ roomId, userId, name, trust, here, onClose }: Props) {
  const connection = useConnection();
  const { phase } = useApp((s) => s.encryption);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState('');
  const words = {
    verified: `You have compared emojis with ${name}. Messages and calls reach only them.`,
    unverified: `Messages and calls are encrypted. To be sure that nobody stands between you and ${name}, compare emojis once: side by side, or in a call.`,
    changed: `${name} has a new identity since you compared emojis. They may have started over, or somebody poses as them: compare again.`,
    unknown: `${name} has not set up an identity yet, so there is nothing to compare.`,
  }[trust];
  const hindrance = phase !== 'ready' ? 'Confirm this device first.' : !here ? `${name} has not accepted the invitation yet.` : '';

  const ask = async () => {
    setBusy(true);
    setError('');
    try {
      await connection.verifications.askPerson(userId, roomId);
      onClose();
    } catch {
      setError('The request could not be sent. Please try again.');
      setBusy(false);
    }
  };

  return (
    <Dialog title="Encryption" onClose={onClose} testid="person-dialog">
      <div className="trust-person">
        <Avatar id={userId} name={name} size="l" />
        <strong>{name}</strong>
        <small>{userId}</small>
        <span className={`trust-mark is-${trust}`} data-testid="person-trust" data-trust={trust}>
          <Icon name={trust === 'verified' ? 'shieldCheck' : trust === 'changed' ? 'warning' : 'shield'} size={18} />
          {trust === 'verified' ? 'Verified' : trust === 'changed' ? 'Identity changed' : 'Not verified'}
        </span>
      </div>
      <p className="dialog-words">{words}</p>
      {error && (
        <p className="callout callout-problem" role="alert">
          {error}
        </p>
      )}
      {trust !== 'verified' && hindrance && <p className="callout">{hindrance}</p>}
      <footer className="dialog-foot">
        <button type="button" className="button" onClick={onClose}>
          Close
        </button>
        {trust !== 'verified' && (
          <button type="button" className="button button-primary" disabled={busy || Boolean(hindrance) || trust === 'unknown'} onClick={() => void ask()} data-testid="verify-person">
            Compare emojis
          </button>
        )}
      </footer>
    </Dialog>
  );
}
