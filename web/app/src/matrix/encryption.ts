// SPDX-License-Identifier: Apache-2.0
import { type MatrixClient, type MatrixError } from 'matrix-js-sdk';
import { CryptoEvent, decodeRecoveryKey, type CryptoApi, type CryptoCallbacks } from 'matrix-js-sdk/lib/crypto-api/index.js';
import type { Session } from '../auth/session.ts';
import type { EncryptionPhase } from '../encryption/view.ts';
import { useApp } from '../store.ts';

/** The name under which IndexedDB keeps the keys of one device. */
export function cryptoDatabase(userId: string, deviceId: string): string {
  return `trunkboard-crypto:${userId}:${deviceId}`;
}

/** Thrown when the server wants the password before it takes a new identity, and none is at hand. */
export class PasswordNeeded extends Error {
  constructor() {
    super('Please enter your password.');
  }
}

type MakeRequest = (auth: Record<string, unknown> | null) => Promise<void>;

/**
 * The end-to-end encryption of one signed-in device: the Rust crypto of the SDK, the account's cross-signing
 * identity, secret storage with its recovery key, and the key backup. Writes what the screens show into the store.
 */
export class Encryption {
  private client: MatrixClient | null = null;
  private readonly session: Session;
  /** From the sign-in form, until the first decision is made; never stored. */
  private password: string | undefined;
  /** The key of the secret storage, while something that needs it runs. */
  private storageKey: [string, Uint8Array<ArrayBuffer>] | null = null;
  private deciding = false;

  constructor(session: Session, password?: string) {
    this.session = session;
    this.password = password;
  }

  /** For createClient. */
  readonly callbacks: CryptoCallbacks = {
    getSecretStorageKey: async ({ keys }) => (this.storageKey && this.storageKey[0] in keys ? this.storageKey : null),
    cacheSecretStorageKey: (id, _info, key) => {
      this.storageKey = [id, key];
    },
  };

  /** Loads the crypto module and opens the device's keys. Must end before the client starts to sync. */
  async start(client: MatrixClient): Promise<void> {
    this.client = client;
    // Browsers offer these two on secure addresses only, and not in every private window.
    if (!globalThis.crypto?.subtle || !globalThis.indexedDB) {
      this.show('off', 'Encryption needs a secure address (https) and a browser that may store keys.');
      return;
    }
    try {
      await client.initRustCrypto({ cryptoDatabasePrefix: cryptoDatabase(this.session.userId, this.session.deviceId) });
    } catch (error) {
      this.show('off', `The encryption could not start: ${error instanceof Error ? error.message : String(error)}`);
      return;
    }
    client.on(CryptoEvent.KeysChanged, this.onTrust);
    client.on(CryptoEvent.UserTrustStatusChanged, this.onTrust);
    client.on(CryptoEvent.DevicesUpdated, this.onTrust);
  }

  stop(): void {
    this.password = undefined;
    this.storageKey = null;
    this.client?.off(CryptoEvent.KeysChanged, this.onTrust);
    this.client?.off(CryptoEvent.UserTrustStatusChanged, this.onTrust);
    this.client?.off(CryptoEvent.DevicesUpdated, this.onTrust);
  }

  /** Looks where the device stands, once the client is in sync; sets up an account that has no identity when the password is at hand. */
  async decide(): Promise<void> {
    const { phase } = useApp.getState().encryption;
    if (this.deciding || phase !== 'starting' || !this.client?.getCrypto()) return;
    this.deciding = true;
    try {
      const password = this.password;
      if (await this.crypto().userHasCrossSigningKeys()) {
        await this.refresh();
        // Asked once, after signing in; later a line over the conversation reminds.
        if (password && useApp.getState().encryption.phase === 'locked') useApp.setState({ confirming: true });
      } else if (password) await this.setUp(password);
      else this.show('unset');
      this.password = undefined;
    } catch {
      // The line is down or the server refused; the next sync that works asks again.
    } finally {
      this.deciding = false;
    }
  }

  /** Makes the account's identity, its secret storage with a new recovery key, and its key backup. */
  async setUp(password: string): Promise<void> {
    const crypto = this.crypto();
    this.show('working');
    try {
      // Keys that an earlier attempt made but could not publish are worth nothing: begin anew.
      await crypto.bootstrapCrossSigning({ setupNewCrossSigning: true, authUploadDeviceSigningKeys: (request) => this.authorise(request as MakeRequest, password) });
      await this.makeRecoveryKey();
      this.show('ready');
    } catch (error) {
      this.show('unset');
      throw error;
    }
  }

  /** Makes a new recovery key in place of the old one, which opens nothing any more. */
  async makeRecoveryKey(): Promise<void> {
    const crypto = this.crypto();
    try {
      const made = await crypto.createRecoveryKeyFromPassphrase();
      await crypto.bootstrapSecretStorage({
        createSecretStorageKey: async () => made,
        setupNewSecretStorage: true,
        setupNewKeyBackup: !(await crypto.getActiveSessionBackupVersion()),
      });
      useApp.setState({ recoveryKey: { words: made.encodedPrivateKey!, open: true } });
    } finally {
      this.storageKey = null;
    }
  }

  /** Confirms this device with the recovery key and fetches the old messages' keys from the backup. Returns their number. */
  async unlock(typed: string): Promise<number> {
    const crypto = this.crypto();
    const storage = this.client!.secretStorage;
    let key: Uint8Array<ArrayBuffer>;
    try {
      key = decodeRecoveryKey(typed.trim());
    } catch {
      throw new Error('That is not a whole recovery key: it has 12 groups of 4 letters and digits.');
    }
    const known = await storage.getKey();
    if (!known || !(await storage.isStored('m.cross_signing.master'))) throw new Error('This account has no recovery key.');
    if (!(await storage.checkKey(key, known[1]))) throw new Error('That key is not the current recovery key of this account.');
    this.storageKey = [known[0], key];
    try {
      await crypto.bootstrapCrossSigning({});
      let imported = 0;
      if (await crypto.getKeyBackupInfo()) {
        await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await crypto.checkKeyBackupAndEnable();
        imported = (await crypto.restoreKeyBackup()).imported;
      }
      await this.refresh();
      return imported;
    } finally {
      this.storageKey = null;
    }
  }

  /** Gives the account a new identity when the recovery key and every other device are lost. Old messages stay unreadable. */
  async startOver(password: string): Promise<void> {
    await this.crypto().resetEncryption((request) => this.authorise(request as MakeRequest, password));
    await this.makeRecoveryKey();
    await this.refresh();
  }

  /** The first upload of an identity needs no password, a later one does (user-interactive authentication). */
  private async authorise(request: MakeRequest, password: string): Promise<void> {
    try {
      await request(null);
    } catch (error) {
      const { httpStatus, data } = error as MatrixError;
      if (httpStatus !== 401 || !data?.flows) throw error;
      if (!password) throw new PasswordNeeded();
      await request({ type: 'm.login.password', identifier: { type: 'm.id.user', user: this.session.userId }, password, session: data.session });
    }
  }

  private onTrust = (): void => {
    const { phase } = useApp.getState().encryption;
    if (phase === 'locked' || phase === 'ready') void this.refresh().catch(() => {});
  };

  private async refresh(): Promise<void> {
    const status = await this.crypto().getDeviceVerificationStatus(this.session.userId, this.session.deviceId);
    this.show(status?.crossSigningVerified ? 'ready' : 'locked');
  }

  private crypto(): CryptoApi {
    const crypto = this.client?.getCrypto();
    if (!crypto) throw new Error('This browser cannot encrypt.');
    return crypto;
  }

  private show(phase: EncryptionPhase, problem = ''): void {
    const before = useApp.getState().encryption;
    if (before.phase !== phase || before.problem !== problem) useApp.setState({ encryption: { phase, problem } });
  }
}
