// SPDX-License-Identifier: Apache-2.0
import { useCallback, useEffect, useState } from 'react';
import type { Session } from '../auth/session.ts';
import { CallScreen } from '../calls/CallScreen.tsx';
import { IncomingCall } from '../calls/IncomingCall.tsx';
import { ConfirmDevice } from '../encryption/ConfirmDevice.tsx';
import { EncryptionBanner } from '../encryption/EncryptionBanner.tsx';
import { RecoveryKeyDialog } from '../encryption/RecoveryKeyDialog.tsx';
import { GroupCallScreen } from '../group/GroupCallScreen.tsx';
import { VerificationDialog } from '../encryption/VerificationDialog.tsx';
import { Connection, OpenElsewhere } from '../matrix/connection.ts';
import { wentWrong } from '../matrix/wrong.ts';
import { readAddress, useApp } from '../store.ts';
import { Icon, Logo } from '../ui/Icon.tsx';
import { Toasts } from '../ui/Toasts.tsx';
import { CallsView } from './CallsView.tsx';
import { ConnectionProvider } from './context.ts';
import { RoomView } from './RoomView.tsx';
import { Sidebar } from './Sidebar.tsx';
import '../styles/workspace.css';
import '../styles/timeline.css';
import '../styles/calls.css';
import '../styles/call.css';
import '../styles/incoming.css';
import '../styles/devices.css';
import '../styles/group.css';
import '../styles/encryption.css';

interface Props {
  session: Session;
  /** The password that was just typed, once; undefined after a reload. */
  takePassword: () => string | undefined;
  onGone: (words: string) => void;
}

/** Opens the connection of a session and closes it when the session changes. */
function useSession({ session, takePassword, onGone }: Props): { connection: Connection | null; problem: string; elsewhere: boolean; take: () => void } {
  const [connection, setConnection] = useState<Connection | null>(null);
  const [problem, setProblem] = useState('');
  const [elsewhere, setElsewhere] = useState(false);
  const [taking, setTaking] = useState(0);
  useEffect(() => {
    let dropped = false;
    let opened: Connection | null = null;
    const gone = () => {
      opened = null;
      setConnection(null);
      setElsewhere(true);
    };
    Connection.open(session, onGone, gone, { password: takePassword(), take: taking > 0 }).then(
      (c) => {
        if (dropped) return c.stop();
        opened = c;
        setConnection(c);
      },
      (error: unknown) => {
        if (dropped) return;
        if (error instanceof OpenElsewhere) setElsewhere(true);
        else setProblem(wentWrong(error));
      },
    );
    return () => {
      dropped = true;
      opened?.stop();
    };
    // The session is fixed for the life of this component: its key is the device.
  }, [taking]);
  const take = useCallback(() => {
    setElsewhere(false);
    setTaking((n) => n + 1);
  }, []);
  return { connection, problem, elsewhere, take };
}

/** Keeps what the store has open and the address in step. */
function useAddress(): void {
  useEffect(() => {
    const read = () => useApp.setState(readAddress(location.hash));
    read();
    window.addEventListener('hashchange', read);
    return () => window.removeEventListener('hashchange', read);
  }, []);
}

/** Unread conversations and a ringing call show in the tab's title. */
function useTitle(): void {
  const unread = useApp((s) => s.rooms.filter((r) => r.unread > 0 || r.membership === 'invite').length);
  const caller = useApp((s) => s.incoming?.peerName);
  useEffect(() => {
    document.title = caller ? `${caller} is calling…` : unread ? `(${unread}) Trunkboard` : 'Trunkboard';
  }, [unread, caller]);
}

export default function Workspace(props: Props) {
  const { connection, problem, elsewhere, take } = useSession(props);
  const roomId = useApp((s) => s.roomId);
  const calls = useApp((s) => s.calls);
  const sync = useApp((s) => s.sync);
  const inCall = useApp((s) => (s.call !== null && !s.call.minimised) || (s.group !== null && !s.group.minimised));
  useAddress();
  useTitle();

  if (elsewhere) {
    return (
      <main className="splash" data-testid="elsewhere">
        <Logo size={56} />
        <p role="status">Trunkboard is open in another tab.</p>
        <button type="button" className="button button-primary" onClick={take} data-testid="elsewhere-take">
          Use it here
        </button>
      </main>
    );
  }
  if (!connection) {
    return (
      <main className="splash" aria-busy={!problem}>
        <Logo size={56} />
        <p role="status">{problem ? `Trunkboard could not start: ${problem}` : 'Connecting…'}</p>
        {problem && (
          <button type="button" className="button" onClick={() => location.reload()}>
            Try again
          </button>
        )}
      </main>
    );
  }
  return (
    <ConnectionProvider value={connection}>
      <div className={`workspace ${roomId || calls ? 'has-room' : ''}`} inert={inCall} data-testid="workspace">
        {/* Above both, since a phone shows one of them at a time. */}
        <section className="banners" aria-label="Notices">
          {sync === 'offline' && (
            <p className="banner" role="status" data-testid="offline">
              <span className="spinner" aria-hidden="true" /> No connection to the server. Trying again…
            </p>
          )}
          <EncryptionBanner />
        </section>
        <Sidebar />
        <main className="pane">
          {roomId ? <RoomView key={roomId} roomId={roomId} /> : calls ? <CallsView /> : <NothingOpen />}
        </main>
      </div>
      <ConfirmDevice />
      <RecoveryKeyDialog />
      <VerificationDialog />
      <CallScreen />
      <GroupCallScreen />
      <IncomingCall />
      <Toasts />
    </ConnectionProvider>
  );
}

function NothingOpen() {
  const rooms = useApp((s) => s.rooms.length);
  return (
    <div className="empty" data-testid="empty-state">
      <div className="empty-art" aria-hidden="true">
        <Logo size={72} />
      </div>
      <h2>{rooms ? 'Pick a conversation' : 'Nobody on the line yet'}</h2>
      <p>{rooms ? 'Choose a person or a room on the left, or start something new.' : 'Start a chat with somebody on this server, then ring them.'}</p>
      <button type="button" className="button button-primary" onClick={() => document.getElementById('new-chat')?.click()}>
        <Icon name="plus" size={18} /> New chat
      </button>
    </div>
  );
}
