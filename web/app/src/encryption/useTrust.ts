// SPDX-License-Identifier: Apache-2.0
import { CryptoEvent } from 'matrix-js-sdk/lib/crypto-api/index.js';
import { useEffect, useState } from 'react';
import { useConnection } from '../workspace/context.ts';

/** Grows whenever the keys or the trust of anybody change. */
export function useTrustRevision(): number {
  const { client } = useConnection();
  const [revision, setRevision] = useState(0);
  useEffect(() => {
    const bump = () => setRevision((n) => n + 1);
    const events = [CryptoEvent.UserTrustStatusChanged, CryptoEvent.KeysChanged, CryptoEvent.DevicesUpdated] as const;
    for (const event of events) client.on(event, bump);
    return () => {
      for (const event of events) client.off(event, bump);
    };
  }, [client]);
  return revision;
}

/** `changed`: the person was verified and has another identity now. `unknown`: they have none, or nothing is known yet. */
export type UserTrust = 'verified' | 'unverified' | 'changed' | 'unknown';

export function useUserTrust(userId: string | undefined): UserTrust {
  const { client } = useConnection();
  const revision = useTrustRevision();
  const [trust, setTrust] = useState<UserTrust>('unknown');
  useEffect(() => {
    let stale = false;
    const crypto = client.getCrypto();
    if (!crypto || !userId) return;
    crypto.getUserVerificationStatus(userId).then(
      (status) => {
        if (stale) return;
        if (status.isCrossSigningVerified()) setTrust('verified');
        else if (status.wasCrossSigningVerified() || status.needsUserApproval) setTrust('changed');
        else setTrust(status.known ? 'unverified' : 'unknown');
      },
      () => {},
    );
    return () => {
      stale = true;
    };
  }, [client, userId, revision]);
  return trust;
}
