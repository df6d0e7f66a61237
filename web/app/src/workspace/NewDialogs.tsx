// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState, type FormEvent } from 'react';
import { localPart, parseUser, serverPart } from '../matrix/names.ts';
import { openRoom, toast, useApp } from '../store.ts';
import { Avatar } from '../ui/Avatar.tsx';
import { Dialog } from '../ui/Dialog.tsx';
import { useConnection } from './context.ts';

interface Found {
  user_id: string;
  display_name?: string;
}

/** Waits this long after the last key before asking the server's user directory. */
const SEARCH_DELAY_MS = 250;

/** People the server knows by that name; empty when it has no directory. */
function useDirectory(term: string): Found[] {
  const { client, userId } = useConnection();
  const [found, setFound] = useState<Found[]>([]);
  useEffect(() => {
    const wanted = term.trim();
    if (wanted.length < 2) {
      setFound([]);
      return;
    }
    let stale = false;
    const timer = setTimeout(() => {
      client.searchUserDirectory({ term: wanted, limit: 6 }).then(
        (answer) => !stale && setFound(answer.results.filter((r) => r.user_id !== userId)),
        () => !stale && setFound([]),
      );
    }, SEARCH_DELAY_MS);
    return () => {
      stale = true;
      clearTimeout(timer);
    };
  }, [client, userId, term]);
  return found;
}

/** Whether an account exists: false only when its server says so. */
async function exists(client: ReturnType<typeof useConnection>['client'], userId: string): Promise<boolean> {
  try {
    await client.getProfileInfo(userId);
    return true;
  } catch (error) {
    return (error as { errcode?: string }).errcode !== 'M_NOT_FOUND';
  }
}

function failure(error: unknown): string {
  return error instanceof Error ? error.message.replace(/^MatrixError: /, '') : 'That did not work.';
}

export function NewChatDialog({ onClose }: { onClose: () => void }) {
  const connection = useConnection();
  const [input, setInput] = useState('');
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const found = useDirectory(input);

  const start = async (userId: string | null) => {
    if (!userId) return setError('That does not look like a user name.');
    if (userId === connection.userId) return setError('That is you. Who else would you like to talk to?');
    setBusy(true);
    setError('');
    try {
      if (!(await exists(connection.client, userId))) {
        setError(`There is nobody called ${userId}.`);
        setBusy(false);
        return;
      }
      openRoom(await connection.startChat(userId));
      onClose();
    } catch (problem) {
      setError(failure(problem));
      setBusy(false);
    }
  };

  return (
    <Dialog title="New chat" onClose={onClose} testid="new-chat-dialog">
      <form
        onSubmit={(e: FormEvent) => {
          e.preventDefault();
          void start(parseUser(input, serverPart(connection.userId)));
        }}
      >
        <label className="field">
          <span>Who would you like to talk to?</span>
          <input autoFocus data-testid="new-chat-input" autoCapitalize="none" autoCorrect="off" spellCheck={false} placeholder="ann or @ann:example.org" value={input} onChange={(e) => setInput(e.target.value)} />
        </label>
        {found.length > 0 && (
          <ul className="people" aria-label="People found">
            {found.map((p) => (
              <li key={p.user_id}>
                <button type="button" className="person" disabled={busy} onClick={() => void start(p.user_id)}>
                  <Avatar id={p.user_id} name={p.display_name ?? localPart(p.user_id)} size="s" />
                  <span>
                    <strong>{p.display_name ?? localPart(p.user_id)}</strong>
                    <small>{p.user_id}</small>
                  </span>
                </button>
              </li>
            ))}
          </ul>
        )}
        {error && (
          <p className="callout callout-problem" role="alert">
            {error}
          </p>
        )}
        <footer className="dialog-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button button-primary" disabled={busy || !input.trim()} data-testid="new-chat-submit">
            Start chat
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

export function NewRoomDialog({ onClose }: { onClose: () => void }) {
  const connection = useConnection();
  const [name, setName] = useState('');
  const [guests, setGuests] = useState('');
  const [encrypted, setEncrypted] = useState(connection.canEncrypt);
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const server = serverPart(connection.userId);
    const names = guests.split(/[\s,]+/).filter(Boolean);
    const users = names.map((g) => parseUser(g, server));
    const wrong = users.indexOf(null);
    if (wrong >= 0) return setError(`“${names[wrong]}” does not look like a user name.`);
    setBusy(true);
    try {
      openRoom(await connection.createRoom(name.trim(), users as string[], encrypted));
      onClose();
    } catch (problem) {
      setError(failure(problem));
      setBusy(false);
    }
  };

  return (
    <Dialog title="New room" onClose={onClose} testid="new-room-dialog">
      <form onSubmit={submit}>
        <label className="field">
          <span>Name</span>
          <input autoFocus data-testid="new-room-name" value={name} onChange={(e) => setName(e.target.value)} placeholder="Design team" />
        </label>
        <label className="field">
          <span>Invite</span>
          <input data-testid="new-room-invite" value={guests} onChange={(e) => setGuests(e.target.value)} placeholder="ann, ben (you can add more later)" autoCapitalize="none" spellCheck={false} />
        </label>
        <label className="check">
          <input type="checkbox" data-testid="new-room-encrypted" checked={encrypted} disabled={!connection.canEncrypt} onChange={(e) => setEncrypted(e.target.checked)} />
          <span>
            End-to-end encrypted
            <small>Only its members can read it. This cannot be turned off later.</small>
          </span>
        </label>
        {error && (
          <p className="callout callout-problem" role="alert">
            {error}
          </p>
        )}
        <footer className="dialog-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button button-primary" disabled={busy || !name.trim()} data-testid="new-room-submit">
            Make room
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

export function InviteDialog({ roomId, onClose }: { roomId: string; onClose: () => void }) {
  const connection = useConnection();
  const [input, setInput] = useState('');
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const userId = parseUser(input, serverPart(connection.userId));
    if (!userId) return setError('That does not look like a user name.');
    setBusy(true);
    try {
      await connection.client.invite(roomId, userId);
      toast(`${localPart(userId)} is invited.`);
      onClose();
    } catch (problem) {
      setError(failure(problem));
      setBusy(false);
    }
  };
  return (
    <Dialog title="Invite somebody" onClose={onClose} testid="invite-dialog">
      <form onSubmit={submit}>
        <label className="field">
          <span>User name</span>
          <input autoFocus data-testid="invite-input" value={input} onChange={(e) => setInput(e.target.value)} placeholder="ann or @ann:example.org" autoCapitalize="none" spellCheck={false} />
        </label>
        {error && (
          <p className="callout callout-problem" role="alert">
            {error}
          </p>
        )}
        <footer className="dialog-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button button-primary" disabled={busy || !input.trim()} data-testid="invite-submit">
            Invite
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

export function NameDialog({ onClose }: { onClose: () => void }) {
  const connection = useConnection();
  const [name, setName] = useState(useApp.getState().ownName);
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    try {
      await connection.rename(name.trim());
      onClose();
    } catch (problem) {
      setError(failure(problem));
      setBusy(false);
    }
  };
  return (
    <Dialog title="Your name" onClose={onClose} testid="name-dialog">
      <form onSubmit={submit}>
        <label className="field">
          <span>What others call you</span>
          <input autoFocus data-testid="name-input" autoComplete="name" value={name} onChange={(e) => setName(e.target.value)} placeholder={localPart(connection.userId)} />
        </label>
        {error && (
          <p className="callout callout-problem" role="alert">
            {error}
          </p>
        )}
        <footer className="dialog-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button button-primary" disabled={busy} data-testid="name-submit">
            Save
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
