// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from 'react';
import { localPart } from '../matrix/names.ts';
import { wentWrong } from '../matrix/wrong.ts';
import { openRoom, toast, useApp } from '../store.ts';
import { Avatar } from '../ui/Avatar.tsx';
import { Icon } from '../ui/Icon.tsx';
import { Composer } from './Composer.tsx';
import { PersonDialog } from '../encryption/PersonDialog.tsx';
import { useUserTrust } from '../encryption/useTrust.ts';
import { useConnection } from './context.ts';
import { GroupCallButtons } from '../group/GroupCallButtons.tsx';
import { InviteDialog } from './NewDialogs.tsx';
import { Timeline } from './Timeline.tsx';
import { WidgetDialog } from '../widget/WidgetDialog.tsx';
import { useUploads } from './uploads.ts';
import { useRoom, type RoomModel } from './useRoom.ts';

const TRUST = { verified: 'verified', changed: 'the identity has changed', unverified: 'not verified yet', unknown: 'not verified yet' };

const PRESENCE: Record<string, string> = { online: 'Online', unavailable: 'Away', offline: 'Offline' };

export function RoomView({ roomId }: { roomId: string }) {
  const connection = useConnection();
  const model = useRoom(connection.client, roomId);
  const uploads = useUploads(connection, roomId);
  const [dropping, setDropping] = useState(false);
  const item = useApp((s) => s.rooms.find((r) => r.id === roomId));

  if (!model.room || item?.membership === 'invite') {
    return (
      <div className="empty">
        <p>{item ? 'Accept the invitation on the left to read this conversation.' : 'This conversation is not here.'}</p>
        <button type="button" className="button" onClick={() => openRoom(null)}>
          Back to the list
        </button>
      </div>
    );
  }
  const encrypted = model.room.hasEncryptionStateEvent();
  return (
    <section
      className={`room ${dropping ? 'is-dropping' : ''}`}
      aria-label={item?.name ?? model.room.name}
      onDragOver={(e) => {
        if (!e.dataTransfer.types.includes('Files')) return;
        e.preventDefault();
        setDropping(true);
      }}
      onDragLeave={(e) => !e.currentTarget.contains(e.relatedTarget as Node | null) && setDropping(false)}
      onDrop={(e) => {
        e.preventDefault();
        setDropping(false);
        uploads.add(e.dataTransfer.files);
      }}
    >
      <RoomHeader roomId={roomId} model={model} />
      <Timeline roomId={roomId} model={model} uploads={uploads} />
      {encrypted && !connection.canEncrypt ? (
        <p className="composer-closed">
          <Icon name="lock" size={18} /> This room is end-to-end encrypted, and this browser cannot encrypt.
        </p>
      ) : (
        <Composer roomId={roomId} onFiles={uploads.add} typing={model.typing} />
      )}
    </section>
  );
}

function RoomHeader({ roomId, model }: { roomId: string; model: RoomModel }) {
  const connection = useConnection();
  const item = useApp((s) => s.rooms.find((r) => r.id === roomId));
  const call = useApp((s) => s.call);
  const group = useApp((s) => s.group);
  const [inviting, setInviting] = useState(false);
  const [menu, setMenu] = useState(false);
  const [asking, setAsking] = useState(false);
  const [meeting, setMeeting] = useState(false);
  const encrypted = Boolean(model.room?.hasEncryptionStateEvent());
  const name = item?.name ?? model.room?.name ?? '';
  const person = item?.kind === 'person';
  // m.call.* is for two: with more people in the room nobody could say who is meant.
  const partner = model.others.length === 1 ? model.others[0] : undefined;
  const inThisCall = call?.roomId === roomId && call.phase !== 'ended';
  const reason = !partner ? 'Calls are for two people' : !partner.joined ? `${localPart(partner.userId)} has not accepted the invitation yet` : group ? 'You are in another call' : '';
  const ring = (video: boolean) => partner && void connection.calls.place(roomId, partner.userId, video);

  const peer = item?.peer;
  const trust = useUserTrust(encrypted && person ? peer : undefined);
  const silent = item?.presence === 'unknown';
  useEffect(() => {
    if (peer && silent && partner?.joined) connection.list.askPresence(peer).catch(() => {});
  }, [connection, peer, silent, partner?.joined]);

  const subtitle = person
    ? partner && !partner.joined
      ? 'Invited, not here yet'
      : (PRESENCE[item.presence] ?? item.peer)
    : `${model.others.length + 1} ${model.others.length ? 'members' : 'member'}`;

  const leave = async () => {
    try {
      await connection.leave(roomId);
      openRoom(null);
    } catch (error) {
      toast(wentWrong(error), 'problem');
    }
  };

  return (
    <header className="room-head">
      <button type="button" className="icon-button only-phone" aria-label="Back to the list" data-testid="back" onClick={() => openRoom(null)}>
        <Icon name="back" />
      </button>
      <Avatar id={item?.peer ?? roomId} name={name} room={!person} presence={person ? item.presence : undefined} />
      <div className="room-title">
        <div className="room-title-line">
          <h1 data-testid="room-title">{name}</h1>
          {encrypted && !person && (
            <span className="room-lock" role="img" aria-label="End-to-end encrypted" title="End-to-end encrypted" data-testid="room-lock">
              <Icon name="lock" size={16} />
            </span>
          )}
          {encrypted && person && peer && (
            <button
              type="button"
              className={`room-lock is-${trust}`}
              aria-label={`End-to-end encrypted, ${TRUST[trust]}`}
              title={`End-to-end encrypted, ${TRUST[trust]}`}
              data-testid="room-lock"
              data-trust={trust}
              onClick={() => setAsking(true)}
            >
              <Icon name={trust === 'verified' ? 'shieldCheck' : trust === 'changed' ? 'warning' : 'lock'} size={16} />
            </button>
          )}
        </div>
        <p>{subtitle}</p>
      </div>
      <div className="room-actions">
        {inThisCall ? (
          <button type="button" className="button button-call" onClick={() => connection.calls.minimise(false)} data-testid="call-return">
            <Icon name="phone" size={18} /> Back to call
          </button>
        ) : (
          partner &&
          group?.roomId !== roomId && (
            <>
              <button type="button" className="icon-button" aria-label={`Voice call with ${name}`} title={reason || 'Voice call'} disabled={Boolean(reason)} data-testid="call-voice" onClick={() => ring(false)}>
                <Icon name="phone" />
              </button>
              <button type="button" className="icon-button" aria-label={`Video call with ${name}`} title={reason || 'Video call'} disabled={Boolean(reason)} data-testid="call-video" onClick={() => ring(true)}>
                <Icon name="video" />
              </button>
            </>
          )
        )}
        {model.room && !inThisCall && <GroupCallButtons room={model.room} name={name} rows={model.rows} others={model.others.length} />}
        <div className="user-menu" onKeyDown={(e) => e.key === 'Escape' && setMenu(false)} onBlur={(e) => !e.currentTarget.contains(e.relatedTarget) && setMenu(false)}>
          <button type="button" className="icon-button" aria-label="More" aria-haspopup="true" aria-expanded={menu} title="More" data-testid="room-menu" onClick={() => setMenu(!menu)}>
            <svg width="20" height="20" viewBox="0 0 24 24" aria-hidden="true" fill="currentColor">
              <circle cx="5" cy="12" r="1.8" />
              <circle cx="12" cy="12" r="1.8" />
              <circle cx="19" cy="12" r="1.8" />
            </svg>
          </button>
          {menu && (
            <div className="menu menu-right" role="group" aria-label="Conversation">
              <button
                type="button"
                data-testid="invite-open"
                onClick={() => {
                  setMenu(false);
                  setInviting(true);
                }}
              >
                <Icon name="invite" size={18} /> Invite somebody
              </button>
              <button
                type="button"
                data-testid="widget-open"
                onClick={() => {
                  setMenu(false);
                  setMeeting(true);
                }}
              >
                <Icon name="video" size={18} /> Meeting in this room
              </button>
              <button type="button" className="danger" data-testid="leave" onClick={() => void leave()}>
                <Icon name="leave" size={18} /> Leave
              </button>
            </div>
          )}
        </div>
      </div>
      {asking && peer && <PersonDialog roomId={roomId} userId={peer} name={name} trust={trust} here={Boolean(partner?.joined)} onClose={() => setAsking(false)} />}
      {meeting && model.room && <WidgetDialog room={model.room} onClose={() => setMeeting(false)} />}
      {inviting && <InviteDialog roomId={roomId} onClose={() => setInviting(false)} />}
    </header>
  );
}
