// SPDX-License-Identifier: Apache-2.0
import {
  ClientEvent,
  createClient,
  EventStatus,
  EventType,
  HttpApiEvent,
  IndexedDBStore,
  KnownMembership,
  MemoryStore,
  PendingEventOrdering,
  Preset,
  SyncState,
  UserEvent,
  type MatrixClient,
  type User,
} from 'matrix-js-sdk';
import { logger } from 'matrix-js-sdk/lib/logger.js';
import { clearSession, loadSession, type Session } from '../auth/session.ts';
import { TokenKeeper } from '../auth/tokens.ts';
import { CallManager } from '../calls/manager.ts';
import { GroupCalls } from '../group/host.ts';
import { resetStore, toast, useApp } from '../store.ts';
import { cryptoDatabase, Encryption } from './encryption.ts';
import { MediaLoader } from './media.ts';
import { localPart } from './names.ts';
import { directRooms, RoomList } from './roomList.ts';
import { holdSession } from './tabLock.ts';
import { SAS, Verifications } from './verification.ts';

/** Debug setting for tests and troubleshooting: allow only relayed connections. */
function relayOnly(): boolean {
  return localStorage.getItem('trunkboard.iceTransportPolicy') === 'relay' || new URLSearchParams(location.search).get('relay') === '1';
}

/** Thrown when another tab of this browser has the session open. */
export class OpenElsewhere extends Error {}

/** What makes a new room encrypted from its first message on. */
const ENCRYPTED = { type: EventType.RoomEncryption as string, state_key: '', content: { algorithm: 'm.megolm.v1.aes-sha2' } };

/** Deleting the stores may wait for ever for a tab that keeps them open. */
const CLEAR_MS = 5000;

export interface OpenOptions {
  /** From the sign-in form: sets up the encryption of an account that has none. */
  password?: string;
  /** Take the session away from another tab. */
  take?: boolean;
}

async function openStore(session: Session): Promise<IndexedDBStore | MemoryStore> {
  try {
    if (globalThis.indexedDB) {
      return new IndexedDBStore({ indexedDB: globalThis.indexedDB, localStorage, dbName: `trunkboard:${session.userId}:${session.deviceId}` });
    }
  } catch {
    // Private windows of some browsers throw on access.
  }
  return new MemoryStore({ localStorage });
}

/** A signed-in account: the client with everything that lives as long as it does. */
export class Connection {
  readonly client: MatrixClient;
  readonly media: MediaLoader;
  readonly calls: CallManager;
  readonly groups: GroupCalls;
  readonly userId: string;
  readonly keeper: TokenKeeper;
  readonly list: RoomList;
  readonly encryption: Encryption;
  readonly verifications: Verifications;
  private readonly onGone: (words: string) => void;
  private over = false;
  private release: () => void = () => {};

  private constructor(client: MatrixClient, keeper: TokenKeeper, encryption: Encryption, session: Session, onGone: (words: string) => void) {
    this.client = client;
    this.encryption = encryption;
    this.verifications = new Verifications(client);
    this.userId = session.userId;
    this.onGone = onGone;
    this.keeper = keeper;
    this.media = new MediaLoader(session.baseUrl, keeper);
    this.calls = new CallManager(client);
    this.groups = new GroupCalls(client, this.media, keeper);
    this.list = new RoomList(client);
    keeper.onRenewed = (renewed) => client.setAccessToken(renewed.accessToken);
    client.on(ClientEvent.Sync, this.onSync);
    client.on(UserEvent.DisplayName, this.onDisplayName);
    client.on(HttpApiEvent.SessionLoggedOut, () => void this.close('You were signed out by the server.'));
    window.addEventListener('online', this.onLine);
    window.addEventListener('offline', this.onLine);
    if (localStorage.getItem('trunkboard.test') === '1') this.expose();
  }

  /**
   * Connects a session. `onGone` is called when the session ends, with the reason in words (empty after sign-out);
   * `onElsewhere` when another tab took it. Throws OpenElsewhere when another tab has it.
   */
  static async open(session: Session, onGone: (words: string) => void, onElsewhere: () => void, { password, take = false }: OpenOptions = {}): Promise<Connection> {
    let opened: Connection | null = null;
    const release = await holdSession(session.deviceId, take, () => {
      opened?.stop();
      onElsewhere();
    });
    if (!release) throw new OpenElsewhere();
    try {
      opened = await Connection.connect(session, onGone, password);
      opened.release = release;
      return opened;
    } catch (error) {
      release();
      throw error;
    }
  }

  private static async connect(session: Session, onGone: (words: string) => void, password?: string): Promise<Connection> {
    // The SDK's logger is loglevel's, though its type does not say so.
    if (localStorage.getItem('trunkboard.debug') !== '1') (logger as unknown as { setLevel(level: string, persist: boolean): void }).setLevel('warn', false);
    const keeper = new TokenKeeper(session);
    const encryption = new Encryption(session, password);
    const options = {
      baseUrl: session.baseUrl,
      userId: session.userId,
      deviceId: session.deviceId,
      accessToken: session.accessToken,
      fetchFn: keeper.fetch,
      forceTURN: relayOnly(),
      // Without a relay of the homeserver a call is direct or fails: no stranger's STUN server learns who calls whom.
      fallbackICEServerAllowed: false,
      iceCandidatePoolSize: 0,
      cryptoCallbacks: encryption.callbacks,
      verificationMethods: [SAS],
    };
    let store = await openStore(session);
    let client = createClient({ ...options, store });
    try {
      await store.startup();
    } catch {
      store = new MemoryStore({ localStorage });
      client = createClient({ ...options, store });
    }
    const connection = new Connection(client, keeper, encryption, session, onGone);
    // The SDK takes a copy of the relay credentials when a call object is made, so they must be there before the first sync brings one.
    await Promise.all([client.checkTurnServers(), encryption.start(client)]);
    void connection.readOwnName();
    await client.startClient({ initialSyncLimit: 30, lazyLoadMembers: true, pendingEventOrdering: PendingEventOrdering.Chronological });
    return connection;
  }

  /** The browser knows of a lost line long before a waiting sync request does. */
  private onLine = (): void => {
    if (!navigator.onLine) useApp.setState({ sync: 'offline' });
    else if (!this.client.retryImmediately()) this.onSync(this.client.getSyncState() ?? SyncState.Stopped);
  };

  private onSync = (state: SyncState): void => {
    const sync = state === SyncState.Prepared || state === SyncState.Syncing ? 'ready' : state === SyncState.Error || state === SyncState.Reconnecting ? 'offline' : undefined;
    const before = useApp.getState().sync;
    if (sync && before !== sync) useApp.setState({ sync });
    if (before === 'offline' && sync === 'ready') this.resendUnsent();
    if (state === SyncState.Prepared) this.list.markAll();
    if (sync === 'ready') void this.encryption.decide();
  };

  private onDisplayName = (_event: unknown, user: User): void => {
    if (user.userId === this.userId && user.rawDisplayName) useApp.setState({ ownName: user.rawDisplayName });
  };

  private async readOwnName(): Promise<void> {
    useApp.setState({ ownName: localPart(this.userId) });
    const profile = await this.client.getProfileInfo(this.userId, 'displayname').catch(() => ({ displayname: '' }));
    if (profile.displayname) useApp.setState({ ownName: profile.displayname });
  }

  async rename(name: string): Promise<void> {
    await this.client.setDisplayName(name);
    useApp.setState({ ownName: name || localPart(this.userId) });
  }

  /** Sends again what failed only because the line was down; what the server refused waits for the person. */
  private resendUnsent(): void {
    for (const room of this.client.getRooms()) {
      for (const event of room.getLiveTimeline().getEvents()) {
        if (event.status !== EventStatus.NOT_SENT || event.getType() !== (EventType.RoomMessage as string)) continue;
        if (event.error?.name === 'ConnectionError') this.client.resendEvent(event, room).catch(() => {});
      }
    }
  }

  private expose(): void {
    const { client, calls } = this;
    Object.defineProperty(window, '__trunkboard', {
      configurable: true,
      value: {
        client,
        store: useApp,
        get call() {
          return calls.current;
        },
        get pc() {
          return calls.current?.peerConn;
        },
      },
    });
  }

  /** Opens the conversation with a person: the existing one, or a new room marked direct. */
  async startChat(userId: string): Promise<string> {
    for (const [roomId, peer] of directRooms(this.client)) {
      if (peer === userId && this.client.getRoom(roomId)?.getMyMembership() === KnownMembership.Join) return roomId;
    }
    const { room_id: roomId } = await this.client.createRoom({
      preset: Preset.TrustedPrivateChat,
      is_direct: true,
      invite: [userId],
      initial_state: this.canEncrypt ? [ENCRYPTED] : [],
    });
    await this.markDirect(roomId, userId);
    return roomId;
  }

  get canEncrypt(): boolean {
    return this.client.getCrypto() !== undefined;
  }

  async createRoom(name: string, invite: string[], encrypted: boolean): Promise<string> {
    const { room_id: roomId } = await this.client.createRoom({ preset: Preset.PrivateChat, name, invite, initial_state: encrypted && this.canEncrypt ? [ENCRYPTED] : [] });
    return roomId;
  }

  /** Joins an invited room; a direct invitation joins the list of people. */
  async acceptInvite(roomId: string): Promise<void> {
    const member = this.client.getRoom(roomId)?.getMember(this.userId);
    const direct = member?.events.member?.getContent().is_direct === true;
    const inviter = member?.events.member?.getSender();
    await this.client.joinRoom(roomId);
    if (direct && inviter) await this.markDirect(roomId, inviter);
  }

  private async markDirect(roomId: string, userId: string): Promise<void> {
    const content = { ...(this.client.getAccountData(EventType.Direct)?.getContent() ?? {}) } as Record<string, string[]>;
    const rooms = Array.isArray(content[userId]) ? content[userId] : [];
    if (rooms.includes(roomId)) return;
    content[userId] = [...rooms, roomId];
    await this.client.setAccountData(EventType.Direct, content);
  }

  async leave(roomId: string): Promise<void> {
    await this.client.leave(roomId);
    await this.client.forget(roomId).catch(() => {});
  }

  async signOut(): Promise<void> {
    const unsaved = useApp.getState().recoveryKey;
    if (unsaved) {
      // Without the key and without this device nobody could read the messages again.
      useApp.setState({ recoveryKey: { ...unsaved, open: true } });
      toast('Save your recovery key before you sign out.');
      return;
    }
    this.calls.hangUp();
    await this.groups.hangUp();
    try {
      await this.client.logout(true);
    } catch {
      toast('The server could not be told, but this browser has forgotten the session.');
    }
    await this.close('');
  }

  private async close(words: string): Promise<void> {
    if (this.over) return;
    this.over = true;
    const own = loadSession()?.deviceId === this.client.getDeviceId();
    this.stop();
    const cleared = this.client.clearStores({ cryptoDatabasePrefix: cryptoDatabase(this.userId, this.client.getDeviceId() ?? '') }).catch(() => {});
    await Promise.race([cleared, new Promise((resolve) => setTimeout(resolve, CLEAR_MS))]);
    this.release();
    if (own) clearSession();
    resetStore();
    this.onGone(words);
  }

  /** Ends everything this account runs in the page; the session itself stays. */
  stop(): void {
    window.removeEventListener('online', this.onLine);
    window.removeEventListener('offline', this.onLine);
    this.calls.stop();
    this.groups.stop();
    this.list.stop();
    this.verifications.stop();
    this.encryption.stop();
    this.client.stopClient();
    this.media.clear();
    if (!this.over) this.release();
  }
}
