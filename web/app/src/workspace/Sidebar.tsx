// SPDX-License-Identifier: Apache-2.0
import { useMemo, useState } from 'react';
import { DeviceDialog } from '../calls/DeviceDialog.tsx';
import { SecurityDialog } from '../encryption/SecurityDialog.tsx';
import { localPart } from '../matrix/names.ts';
import { sections, type RoomItem } from '../matrix/roomItem.ts';
import { wentWrong } from '../matrix/wrong.ts';
import { openCalls, openRoom, toast, useApp } from '../store.ts';
import { Avatar } from '../ui/Avatar.tsx';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from './context.ts';
import { NameDialog, NewChatDialog, NewRoomDialog } from './NewDialogs.tsx';
import { shortTime } from './times.ts';

export function Sidebar() {
  const rooms = useApp((s) => s.rooms);
  const roomId = useApp((s) => s.roomId);
  const calls = useApp((s) => s.calls);
  const sync = useApp((s) => s.sync);
  const [query, setQuery] = useState('');
  const [dialog, setDialog] = useState<'chat' | 'room' | 'devices' | 'security' | 'name' | null>(null);
  const lists = useMemo(() => sections(rooms, query), [rooms, query]);
  const close = () => setDialog(null);

  return (
    <nav className="sidebar" aria-label="Conversations">
      <header className="sidebar-head">
        <UserMenu onDevices={() => setDialog('devices')} onSecurity={() => setDialog('security')} onRename={() => setDialog('name')} />
        <button type="button" className="icon-button" aria-label="Calls" title="Calls" aria-current={calls ? 'page' : undefined} data-testid="open-calls" onClick={openCalls}>
          <Icon name="phone" />
        </button>
        <a className="icon-button" href="/meet/" target="_blank" rel="noopener" aria-label="Meet by a link" title="Meet by a link" data-testid="open-meet">
          <Icon name="video" />
        </a>
        <button type="button" id="new-chat" className="icon-button accent" aria-label="New chat" title="New chat" data-testid="new-chat" onClick={() => setDialog('chat')}>
          <Icon name="plus" />
        </button>
      </header>

      <label className="search">
        <Icon name="search" size={16} />
        <input type="search" placeholder="Find a conversation" aria-label="Find a conversation" value={query} onChange={(e) => setQuery(e.target.value)} />
      </label>

      <div className="room-scroll">
        {sync === 'starting' && rooms.length === 0 && <Skeletons />}
        {lists.invites.length > 0 && (
          <Section title="Invitations">
            {lists.invites.map((item) => (
              <Invite key={item.id} item={item} />
            ))}
          </Section>
        )}
        <Section title="People" empty={sync === 'starting' ? '' : query ? 'Nobody by that name' : 'No chats yet'} onAdd={() => setDialog('chat')} addLabel="Start a chat with somebody">
          {lists.people.map((item) => (
            <Row key={item.id} item={item} open={item.id === roomId} />
          ))}
        </Section>
        {sync !== 'starting' && rooms.length === 0 && (
          <button type="button" className="button button-primary room-first" onClick={() => setDialog('chat')}>
            <Icon name="plus" size={18} /> Start a chat with somebody
          </button>
        )}
        <Section title="Rooms" empty={sync === 'starting' ? '' : query ? 'No room by that name' : 'No rooms yet'} onAdd={() => setDialog('room')} addLabel="Make a room" addTestid="new-room">
          {lists.rooms.map((item) => (
            <Row key={item.id} item={item} open={item.id === roomId} />
          ))}
        </Section>
      </div>

      {dialog === 'chat' && <NewChatDialog onClose={close} />}
      {dialog === 'room' && <NewRoomDialog onClose={close} />}
      {dialog === 'name' && <NameDialog onClose={close} />}
      {dialog === 'devices' && <DeviceDialog onClose={close} />}
      {dialog === 'security' && <SecurityDialog onClose={close} />}
    </nav>
  );
}

function Skeletons() {
  return (
    <div className="skeletons" aria-hidden="true">
      {[0, 1, 2, 3].map((i) => (
        <div key={i} className="skeleton" />
      ))}
    </div>
  );
}

interface SectionProps {
  title: string;
  children: React.ReactNode[];
  empty?: string;
  onAdd?: () => void;
  addLabel?: string;
  addTestid?: string;
}

function Section({ title, children, empty, onAdd, addLabel, addTestid }: SectionProps) {
  return (
    <section className="room-section" aria-label={title}>
      <header>
        <h2>{title}</h2>
        {onAdd && (
          <button type="button" className="icon-button small" aria-label={addLabel} title={addLabel} data-testid={addTestid} onClick={onAdd}>
            <Icon name="plus" size={16} />
          </button>
        )}
      </header>
      {children.length > 0 ? <ul>{children}</ul> : empty ? <p className="room-none">{empty}</p> : null}
    </section>
  );
}

function Row({ item, open }: { item: RoomItem; open: boolean }) {
  const person = item.kind === 'person';
  return (
    <li>
      <button
        type="button"
        className={`room-item ${open ? 'is-open' : ''} ${item.unread ? 'is-unread' : ''}`}
        aria-current={open ? 'page' : undefined}
        data-testid="room-item"
        data-room-id={item.id}
        data-room-name={item.name}
        data-unread={item.unread}
        data-presence={item.presence}
        onClick={() => openRoom(item.id)}
      >
        <Avatar id={item.peer ?? item.id} name={item.name} room={!person} presence={person ? item.presence : undefined} />
        <span className="room-text">
          <span className="room-name">{item.name}</span>
          <span className="room-preview">{item.preview || (person ? 'Say hello' : `${item.members} ${item.members === 1 ? 'member' : 'members'}`)}</span>
        </span>
        <span className="room-meta">
          {item.ts > 0 && <time dateTime={new Date(item.ts).toISOString()}>{shortTime(item.ts, Date.now())}</time>}
          {item.unread > 0 && (
            <span className={`badge ${item.highlight ? 'badge-strong' : ''}`} data-testid="unread" aria-label={`${item.unread} unread`}>
              {item.unread > 99 ? '99+' : item.unread}
            </span>
          )}
        </span>
      </button>
    </li>
  );
}

function Invite({ item }: { item: RoomItem }) {
  const connection = useConnection();
  const [busy, setBusy] = useState(false);
  const act = async (work: () => Promise<unknown>, open: boolean) => {
    setBusy(true);
    try {
      await work();
      if (open) openRoom(item.id);
    } catch (error) {
      toast(wentWrong(error), 'problem');
    }
    setBusy(false);
  };
  return (
    <li className="invite" data-testid="invite" data-room-id={item.id} data-inviter={item.inviter}>
      <Avatar id={item.peer ?? item.id} name={item.name} room={item.kind === 'room'} />
      <span className="room-text">
        <span className="room-name">{item.name}</span>
        <span className="room-preview">{item.preview}</span>
      </span>
      <span className="invite-actions">
        <button type="button" className="icon-button" aria-label={`Decline the invitation from ${item.name}`} title="Decline" disabled={busy} data-testid="invite-decline" onClick={() => act(() => connection.leave(item.id), false)}>
          <Icon name="close" size={18} />
        </button>
        <button type="button" className="icon-button accept" aria-label={`Accept the invitation from ${item.name}`} title="Accept" disabled={busy} data-testid="invite-accept" onClick={() => act(() => connection.acceptInvite(item.id), true)}>
          <Icon name="check" size={18} />
        </button>
      </span>
    </li>
  );
}

function UserMenu({ onDevices, onSecurity, onRename }: { onDevices: () => void; onSecurity: () => void; onRename: () => void }) {
  const connection = useConnection();
  const [open, setOpen] = useState(false);
  const me = connection.userId;
  const name = useApp((s) => s.ownName) || localPart(me);
  return (
    <div className="user-menu" onKeyDown={(e) => e.key === 'Escape' && setOpen(false)} onBlur={(e) => !e.currentTarget.contains(e.relatedTarget) && setOpen(false)}>
      <button type="button" className="user-button" aria-haspopup="true" aria-expanded={open} data-testid="user-menu" onClick={() => setOpen(!open)}>
        <Avatar id={me} name={name} size="s" />
        <span className="user-names">
          <strong>{name}</strong>
          <small>{me}</small>
        </span>
      </button>
      {open && (
        <div className="menu" role="group" aria-label="Account">
          <button
            type="button"
            data-testid="open-name"
            onClick={() => {
              setOpen(false);
              onRename();
            }}
          >
            <Icon name="people" size={18} /> Your name
          </button>
          <button
            type="button"
            data-testid="open-devices"
            onClick={() => {
              setOpen(false);
              onDevices();
            }}
          >
            <Icon name="settings" size={18} /> Camera, microphone, speaker
          </button>
          <button
            type="button"
            data-testid="open-security"
            onClick={() => {
              setOpen(false);
              onSecurity();
            }}
          >
            <Icon name="shield" size={18} /> Encryption and devices
          </button>
          <a href="/doctor" target="_blank" rel="noopener" data-testid="open-doctor" onClick={() => setOpen(false)}>
            <Icon name="check" size={18} /> Do calls work here?
          </a>
          <button type="button" className="danger" data-testid="sign-out" onClick={() => void connection.signOut()}>
            <Icon name="leave" size={18} /> Sign out
          </button>
        </div>
      )}
    </div>
  );
}
