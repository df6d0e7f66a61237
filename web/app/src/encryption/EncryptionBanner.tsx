// SPDX-License-Identifier: Apache-2.0
import { useApp } from '../store.ts';
import { Icon } from '../ui/Icon.tsx';

/** One line over the conversation about what is left to do for the encryption; nothing when all is well. */
export function EncryptionBanner() {
  const { phase } = useApp((s) => s.encryption);
  const key = useApp((s) => s.recoveryKey);
  const line =
    phase === 'locked'
      ? { words: 'This device is not confirmed, so older messages stay closed.', action: 'Confirm', act: () => useApp.setState({ confirming: true }) }
      : phase === 'unset'
        ? { words: 'Your encryption is not set up: messages would be lost with this device.', action: 'Set up', act: () => useApp.setState({ confirming: true }) }
        : key && !key.open
          ? { words: 'Your recovery key is not saved yet.', action: 'Show it', act: () => useApp.setState({ recoveryKey: { ...key, open: true } }) }
          : null;
  if (!line) return null;
  return (
    <p className="banner banner-encryption" role="status" data-testid="encryption-banner" data-phase={phase}>
      <Icon name="shield" size={16} /> {line.words}
      <button type="button" className="link" onClick={line.act} data-testid="encryption-act">
        {line.action}
      </button>
    </p>
  );
}
