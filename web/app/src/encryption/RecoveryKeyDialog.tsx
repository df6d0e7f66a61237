// SPDX-License-Identifier: Apache-2.0
import { useState } from 'react';
import { toast, useApp } from '../store.ts';
import { Dialog } from '../ui/Dialog.tsx';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';

/** Shows a new recovery key until the person says that it is saved. It is kept nowhere else. */
export function RecoveryKeyDialog() {
  const made = useApp((s) => s.recoveryKey);
  if (!made?.open) return null;
  return <RecoveryKey words={made.words} />;
}

function RecoveryKey({ words }: { words: string }) {
  const { userId } = useConnection();
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(words);
      setCopied(true);
    } catch {
      toast('The browser does not let this page copy. Please download the key.', 'problem');
    }
  };
  const download = () => {
    const address = URL.createObjectURL(new Blob([`Recovery key of ${userId}\n\n${words}\n`], { type: 'text/plain' }));
    const link = document.createElement('a');
    link.href = address;
    link.download = 'recovery-key.txt';
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  };
  return (
    <Dialog title="Save your recovery key" onClose={() => useApp.setState({ recoveryKey: { words, open: false } })} testid="recovery-dialog">
      <p className="dialog-words">
        Your messages are end-to-end encrypted. This key opens them when you sign in on a new device and have no other one at hand. Keep it like a password; it is shown only now.
      </p>
      <p className="recovery-key" data-testid="recovery-key" aria-label="Recovery key">
        {words.split(' ').map((group, i) => (
          <span key={i}>{group} </span>
        ))}
      </p>
      <div className="dialog-row">
        <button type="button" className="button" onClick={() => void copy()} data-testid="recovery-copy">
          <Icon name={copied ? 'check' : 'copy'} size={18} /> {copied ? 'Copied' : 'Copy'}
        </button>
        <button type="button" className="button" onClick={download} data-testid="recovery-download">
          <Icon name="download" size={18} /> Download
        </button>
      </div>
      <footer className="dialog-foot">
        <button type="button" className="button" onClick={() => useApp.setState({ recoveryKey: { words, open: false } })} data-testid="recovery-later">
          Later
        </button>
        <button type="button" className="button button-primary" onClick={() => useApp.setState({ recoveryKey: null })} data-testid="recovery-saved">
          I saved it
        </button>
      </footer>
    </Dialog>
  );
}
