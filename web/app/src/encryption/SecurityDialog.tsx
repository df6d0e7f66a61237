// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from 'react';
import { toast, useApp } from '../store.ts';
import { Dialog } from '../ui/Dialog.tsx';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';
import { shortTime } from '../workspace/times.ts';
import { useTrustRevision } from './useTrust.ts';

type DeviceState = 'verified' | 'unverified' | 'plain';

interface DeviceRow {
  id: string;
  name: string;
  /** Unix time in milliseconds; 0 when the server does not say. */
  seen: number;
  state: DeviceState;
}

const STATES: Record<DeviceState, string> = { verified: 'Confirmed', unverified: 'Not confirmed', plain: 'Without encryption' };

/** The account's devices with what this one thinks of them; null while they are fetched. */
function useDevices(): { devices: DeviceRow[] | null; failed: boolean } {
  const { client, userId } = useConnection();
  const revision = useTrustRevision();
  const [devices, setDevices] = useState<DeviceRow[] | null>(null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let stale = false;
    const load = async () => {
      const own = client.getDeviceId();
      const { devices: found } = await client.getDevices();
      const rows = await Promise.all(
        found.map(async (d): Promise<DeviceRow> => {
          const status = await client.getCrypto()?.getDeviceVerificationStatus(userId, d.device_id);
          const state = !status ? 'plain' : status.crossSigningVerified ? 'verified' : 'unverified';
          return { id: d.device_id, name: d.display_name || d.device_id, seen: d.last_seen_ts ?? 0, state };
        }),
      );
      rows.sort((a, b) => Number(b.id === own) - Number(a.id === own) || b.seen - a.seen);
      if (!stale) setDevices(rows);
    };
    load().catch(() => !stale && setFailed(true));
    return () => {
      stale = true;
    };
  }, [client, userId, revision]);
  return { devices, failed };
}

export function SecurityDialog({ onClose }: { onClose: () => void }) {
  const connection = useConnection();
  const { phase, problem } = useApp((s) => s.encryption);
  const { devices, failed } = useDevices();
  const [busy, setBusy] = useState(false);
  const own = connection.client.getDeviceId();

  const confirm = () => {
    onClose();
    useApp.setState({ confirming: true });
  };
  const compare = async (deviceId: string) => {
    try {
      await connection.verifications.askOwnDevice(deviceId);
      onClose();
    } catch {
      toast('The device could not be asked.', 'problem');
    }
  };
  const renew = async () => {
    setBusy(true);
    try {
      await connection.encryption.makeRecoveryKey();
      onClose();
    } catch {
      toast('No new recovery key could be made. Please try again.', 'problem');
      setBusy(false);
    }
  };

  return (
    <Dialog title="Encryption and devices" onClose={onClose} testid="security-dialog">
      {phase === 'off' && <p className="callout callout-problem">{problem}</p>}
      <h3 className="dialog-section">Devices</h3>
      {failed && <p className="callout callout-problem">The devices could not be fetched.</p>}
      {!devices && !failed && (
        <p className="verification-wait" role="status">
          <span className="spinner" aria-hidden="true" /> Fetching your devices
        </p>
      )}
      <ul className="devices">
        {devices?.map((d) => (
          <li key={d.id} className="device" data-testid="device" data-device-id={d.id} data-state={d.state}>
            <Icon name="device" size={22} />
            <span className="device-text">
              <strong>{d.name}</strong>
              <small>
                {d.id === own ? 'This device' : d.seen ? `Last seen ${shortTime(d.seen, Date.now())}` : d.id}
                {d.id !== own && d.seen ? ` · ${d.id}` : ''}
              </small>
            </span>
            {d.state === 'unverified' && phase === 'ready' && d.id !== own ? (
              <button type="button" className="button button-small" onClick={() => void compare(d.id)} data-testid="device-compare">
                Confirm
              </button>
            ) : d.id === own && phase === 'locked' ? (
              <button type="button" className="button button-small" onClick={confirm}>
                Confirm
              </button>
            ) : (
              <span className={`trust-mark is-${d.state}`}>
                <Icon name={d.state === 'verified' ? 'shieldCheck' : 'shield'} size={16} /> {STATES[d.state]}
              </span>
            )}
          </li>
        ))}
      </ul>
      {phase === 'ready' && (
        <>
          <h3 className="dialog-section">Recovery key</h3>
          <div className="dialog-row dialog-row-split">
            <p className="dialog-words">Lost it? A new one replaces it.</p>
            <button type="button" className="button button-small" disabled={busy} onClick={() => void renew()} data-testid="recovery-renew">
              {busy ? <span className="spinner" aria-label="Working" /> : 'New recovery key'}
            </button>
          </div>
        </>
      )}
    </Dialog>
  );
}
