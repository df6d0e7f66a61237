// SPDX-License-Identifier: Apache-2.0
import type { VerificationView } from './view.ts';
import { toast, useApp } from '../store.ts';
import { Avatar } from '../ui/Avatar.tsx';
import { Dialog } from '../ui/Dialog.tsx';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';

/** The verification that runs: a card while somebody asks, a dialog from then on. */
export function VerificationDialog() {
  const view = useApp((s) => s.verification);
  const { verifications } = useConnection();
  if (!view) return null;
  const close = () => void verifications.close();
  // A card, not a dialog: a stranger must not be able to put something between a person and what they do.
  if (view.step === 'asked') return <Asked view={view} />;
  return (
    <Dialog title={view.own ? 'Confirm a device' : `Compare emojis with ${view.peerName}`} onClose={close} testid="verification">
      <div className="verification" data-testid="verification-step" data-step={view.step}>
        <Step view={view} />
      </div>
    </Dialog>
  );
}

function Asked({ view }: { view: VerificationView }) {
  const { verifications } = useConnection();
  const accept = () => verifications.accept().catch(() => toast('The request could not be accepted.', 'problem'));
  return (
    <section className="ask" role="alertdialog" aria-labelledby="ask-title" data-testid="verification-asked">
      {view.own ? <Icon name="shield" size={28} /> : <Avatar id={view.peerId} name={view.peerName} />}
      <div className="ask-text">
        <strong id="ask-title">{view.own ? 'Is that you on another device?' : `${view.peerName} would like to compare emojis`}</strong>
        <small>{view.own ? 'A device that just signed in asks to be confirmed.' : 'Best side by side, or in a call.'}</small>
      </div>
      <div className="ask-actions">
        <button type="button" className="button button-small" onClick={() => void verifications.close()} data-testid="verification-decline">
          {view.own ? 'No' : 'Not now'}
        </button>
        <button type="button" className="button button-small button-primary" onClick={() => void accept()} data-testid="verification-accept">
          {view.own ? 'Yes, compare' : 'Compare'}
        </button>
      </div>
    </section>
  );
}

function Step({ view }: { view: VerificationView }) {
  const { verifications } = useConnection();
  const close = () => void verifications.close();
  switch (view.step) {
    case 'waiting':
      return (
        <Wait words={view.own ? 'Open Trunkboard on your other device and accept there.' : `Waiting for ${view.peerName} to accept.`} onCancel={close} />
      );
    case 'agreed':
      return (
        <>
          <Wait words={`Waiting for ${view.own ? 'the other device' : view.peerName} to start.`} onCancel={close} />
          <button type="button" className="link" onClick={() => void verifications.compare()}>
            Start it here
          </button>
        </>
      );
    case 'starting':
      return <Wait words="Agreeing on the emojis." onCancel={close} />;
    case 'comparing':
    case 'matched':
      return (
        <>
          <p className="dialog-words">{view.own ? 'Does the other device show the same emojis, in this order?' : `Does ${view.peerName} see the same emojis, in this order? Ask them to read theirs out.`}</p>
          <ol className="emojis" data-testid="emojis">
            {view.emojis.map(([emoji, name], i) => (
              <li key={i}>
                <span aria-hidden="true">{emoji}</span>
                <small>{name}</small>
              </li>
            ))}
          </ol>
          {view.step === 'matched' ? (
            <p className="verification-wait" role="status">
              <span className="spinner" aria-hidden="true" /> Waiting for {view.own ? 'the other device' : view.peerName} to say the same.
            </p>
          ) : (
            <footer className="dialog-foot">
              <button type="button" className="button" onClick={() => verifications.mismatch()} data-testid="emojis-differ">
                They differ
              </button>
              <button type="button" className="button button-primary" onClick={() => void verifications.match().catch(() => {})} data-testid="emojis-match">
                They match
              </button>
            </footer>
          )}
        </>
      );
    case 'done':
      return <End icon="shieldCheck" tone="is-good" words={view.own ? 'The device is confirmed.' : `You and ${view.peerName} have verified each other.`} onClose={close} />;
    case 'cancelled':
      return <End icon="warning" tone="is-bad" words={view.words} onClose={close} />;
    default:
      return null;
  }
}

function Wait({ words, onCancel }: { words: string; onCancel: () => void }) {
  return (
    <>
      <p className="verification-wait" role="status">
        <span className="spinner" aria-hidden="true" /> {words}
      </p>
      <footer className="dialog-foot">
        <button type="button" className="button" onClick={onCancel}>
          Cancel
        </button>
      </footer>
    </>
  );
}

function End({ icon, tone, words, onClose }: { icon: 'shieldCheck' | 'warning'; tone: string; words: string; onClose: () => void }) {
  return (
    <>
      <div className={`verification-end ${tone}`} role="status">
        <Icon name={icon} size={44} />
        <p>{words}</p>
      </div>
      <footer className="dialog-foot">
        <button type="button" className="button button-primary" onClick={onClose} data-testid="verification-close">
          {icon === 'warning' ? 'Close' : 'Done'}
        </button>
      </footer>
    </>
  );
}
