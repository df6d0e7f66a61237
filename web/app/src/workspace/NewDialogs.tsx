// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from 'react';
import { localPart, parseUser, serverPart } from '../matrix/names.ts';
import { openRoom, toast, useApp } from '../store.ts';
import { Avatar } from '../ui/Avatar.tsx';
import { FormDialog, Refusal } from '../ui/FormDialog.tsx';
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

/** The user id that somebody typed, of `ownId`'s server if they named none. */
function userNamed(text: string, ownId: string): string {
  const userId = parseUser(text, serverPart(ownId));
  if (!userId) throw new Refusal('That does not look like a user name.');
  return userId;
}

export function NewChatDialog({ onClose }: { onClose: () => void }) {
  const connection = useConnection();
  const [input, setInput] = useState('');
  const found = useDirectory(input);

  const start = async (userId: string) => {
    if (userId === connection.userId) throw new Refusal('That is you. Who else would you like to talk to?');
    if (!(await exists(connection.client, userId))) throw new Refusal(`There is nobody called ${userId}.`);
    openRoom(await connection.startChat(userId));
  };

  return (
    <FormDialog
      title="New chat"
      testid="new-chat-dialog"
      action="Start chat"
      actionTestid="new-chat-submit"
      ready={input.trim() !== ''}
      onSubmit={async () => start(userNamed(input, connection.userId))}
      onClose={onClose}
    >
      {(busy, perform) => (
        <>
          <label className="field">
            <span>Who would you like to talk to?</span>
            <input autoFocus data-testid="new-chat-input" autoCapitalize="none" autoCorrect="off" spellCheck={false} placeholder="ann or @ann:example.org" value={input} onChange={(e) => setInput(e.target.value)} />
          </label>
          {found.length > 0 && (
            <ul className="people" aria-label="People found">
              {found.map((p) => (
                <li key={p.user_id}>
                  <button type="button" className="person" disabled={busy} onClick={() => perform(() => start(p.user_id))}>
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
        </>
      )}
    </FormDialog>
  );
}

export function NewRoomDialog({ onClose }: { onClose: () => void }) {
  const connection = useConnection();
  const [name, setName] = useState('');
  const [guests, setGuests] = useState('');
  const [encrypted, setEncrypted] = useState(connection.canEncrypt);

  const make = async () => {
    const server = serverPart(connection.userId);
    const users = guests
      .split(/[\s,]+/)
      .filter(Boolean)
      .map((guest) => {
        const userId = parseUser(guest, server);
        if (!userId) throw new Refusal(`“${guest}” does not look like a user name.`);
        return userId;
      });
    openRoom(await connection.createRoom(name.trim(), users, encrypted));
  };

  return (
    <FormDialog title="New room" testid="new-room-dialog" action="Make room" actionTestid="new-room-submit" ready={name.trim() !== ''} onSubmit={make} onClose={onClose}>
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
    </FormDialog>
  );
}

export function InviteDialog({ roomId, onClose }: { roomId: string; onClose: () => void }) {
  const connection = useConnection();
  const [input, setInput] = useState('');
  const invite = async () => {
    const userId = userNamed(input, connection.userId);
    await connection.client.invite(roomId, userId);
    toast(`${localPart(userId)} is invited.`);
  };
  return (
    <FormDialog title="Invite somebody" testid="invite-dialog" action="Invite" actionTestid="invite-submit" ready={input.trim() !== ''} onSubmit={invite} onClose={onClose}>
      <label className="field">
        <span>User name</span>
        <input autoFocus data-testid="invite-input" value={input} onChange={(e) => setInput(e.target.value)} placeholder="ann or @ann:example.org" autoCapitalize="none" spellCheck={false} />
      </label>
    </FormDialog>
  );
}

export function NameDialog({ onClose }: { onClose: () => void }) {
  const connection = useConnection();
  const [name, setName] = useState(useApp.getState().ownName);
  return (
    <FormDialog title="Your name" testid="name-dialog" action="Save" actionTestid="name-submit" ready onSubmit={() => connection.rename(name.trim())} onClose={onClose}>
      <label className="field">
        <span>What others call you</span>
        <input autoFocus data-testid="name-input" autoComplete="name" value={name} onChange={(e) => setName(e.target.value)} placeholder={localPart(connection.userId)} />
      </label>
    </FormDialog>
  );
}
