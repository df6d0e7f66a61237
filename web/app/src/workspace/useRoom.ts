// SPDX-License-Identifier: Apache-2.0
import {
  ClientEvent,
  Direction,
  EventType,
  KnownMembership,
  MatrixEventEvent,
  RoomEvent,
  RoomMemberEvent,
  RoomStateEvent,
  type MatrixClient,
  type MatrixEvent,
  type Room,
} from 'matrix-js-sdk';
import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { raw } from '../matrix/convert.ts';
import { displayName } from '../matrix/names.ts';
import { timelineRows, type TimelineRow } from '../matrix/timeline.ts';

/** How many older events one scroll to the top asks for. */
const PAGE = 30;

/** Re-renders, at most once a frame, whenever something in the room changes. Returns a number that grows. */
function useRoomRevision(client: MatrixClient, roomId: string): number {
  const [revision, setRevision] = useState(0);
  useEffect(() => {
    let scheduled = 0;
    const bump = () => {
      scheduled ||= window.setTimeout(() => {
        scheduled = 0;
        setRevision((n) => n + 1);
      }, 16);
    };
    const ofRoom = (_e: unknown, room?: { roomId: string } | null) => {
      if (room?.roomId === roomId) bump();
    };
    const room = (r: Room) => r.roomId === roomId && bump();
    const typing = (_e: unknown, member: { roomId: string }) => member.roomId === roomId && bump();
    const decrypted = (e: MatrixEvent) => e.getRoomId() === roomId && bump();
    client.on(RoomEvent.Timeline, ofRoom as never);
    client.on(RoomEvent.TimelineReset, ofRoom as never);
    client.on(RoomEvent.LocalEchoUpdated, ofRoom as never);
    client.on(RoomEvent.Redaction, ofRoom as never);
    client.on(RoomEvent.Receipt, ofRoom as never);
    client.on(RoomStateEvent.Members, typing as never);
    client.on(RoomMemberEvent.Typing, typing as never);
    client.on(RoomEvent.MyMembership, room as never);
    client.on(RoomEvent.Name, room as never);
    client.on(ClientEvent.Room, room as never);
    client.on(MatrixEventEvent.Decrypted, decrypted as never);
    bump();
    return () => {
      clearTimeout(scheduled);
      client.off(RoomEvent.Timeline, ofRoom as never);
      client.off(RoomEvent.TimelineReset, ofRoom as never);
      client.off(RoomEvent.LocalEchoUpdated, ofRoom as never);
      client.off(RoomEvent.Redaction, ofRoom as never);
      client.off(RoomEvent.Receipt, ofRoom as never);
      client.off(RoomStateEvent.Members, typing as never);
      client.off(RoomMemberEvent.Typing, typing as never);
      client.off(RoomEvent.MyMembership, room as never);
      client.off(RoomEvent.Name, room as never);
      client.off(ClientEvent.Room, room as never);
      client.off(MatrixEventEvent.Decrypted, decrypted as never);
    };
  }, [client, roomId]);
  return revision;
}

export interface RoomModel {
  room: Room | null;
  rows: TimelineRow[];
  /** Display names of the others who type now. */
  typing: string[];
  /** For each event id the people (not us) whose newest read receipt it is. */
  readers: Map<string, string[]>;
  canPaginate: boolean;
  paginating: boolean;
  loadOlder: () => Promise<void>;
  /** The other members that joined or are invited. */
  others: { userId: string; joined: boolean }[];
  revision: number;
}

/** Call tiles turn from ringing to missed with time alone. */
const TICK_MS = 30_000;

export function useRoom(client: MatrixClient, roomId: string): RoomModel {
  const revision = useRoomRevision(client, roomId);
  const [tick, setTick] = useState(0);
  const [paginating, setPaginating] = useState(false);
  const busy = useRef(false);
  const me = client.getSafeUserId();
  const room = client.getRoom(roomId);

  useEffect(() => {
    const timer = setInterval(() => setTick((n) => n + 1), TICK_MS);
    return () => clearInterval(timer);
  }, []);

  // With lazily loaded members the first sync brings only some; names and receipts need them all.
  useEffect(() => {
    void room?.loadMembersIfNeeded().catch(() => {});
  }, [room]);

  // The SDK decrypts by itself only what it needs for counting; what is on the screen is decrypted here.
  useEffect(() => {
    for (const event of room?.getLiveTimeline().getEvents() ?? []) {
      if (event.shouldAttemptDecryption()) client.decryptEventIfNeeded(event).catch(() => {});
    }
  }, [client, room, revision]);

  const rows = useMemo(() => {
    if (!room) return [];
    const events = room.getLiveTimeline().getEvents().map(raw);
    return timelineRows(events, me, Date.now(), (id) => displayName(room, id));
  }, [room, me, revision, tick]);

  const readers = useMemo(() => {
    const map = new Map<string, string[]>();
    if (!room) return map;
    const shown = new Set<string>();
    for (const row of rows) if (row.kind !== 'day') shown.add(row.event.id);
    // A receipt may point at an event without a row of its own (an answer, a candidate): it belongs to the row above.
    let above: string | undefined;
    for (const event of room.getLiveTimeline().getEvents()) {
      const id = event.getId()!;
      if (shown.has(id)) above = id;
      if (!above) continue;
      for (const receipt of room.getReceiptsForEvent(event)) {
        if (receipt.userId === me) continue;
        const list = map.get(above) ?? [];
        if (!list.includes(receipt.userId)) map.set(above, [...list, receipt.userId]);
      }
    }
    return map;
  }, [room, rows, me, revision]);

  const loadOlder = useCallback(async () => {
    if (!room || busy.current) return;
    busy.current = true;
    setPaginating(true);
    try {
      await client.scrollback(room, PAGE);
    } finally {
      busy.current = false;
      setPaginating(false);
    }
  }, [client, room]);

  const members = room ? [...room.getMembersWithMembership(KnownMembership.Join), ...room.getMembersWithMembership(KnownMembership.Invite)] : [];
  return {
    room,
    rows,
    readers,
    revision,
    typing: room ? members.filter((m) => m.typing && m.userId !== me).map((m) => displayName(room, m.userId)) : [],
    canPaginate: Boolean(room?.getLiveTimeline().getPaginationToken(Direction.Backward)),
    paginating,
    loadOlder,
    others: members.filter((m) => m.userId !== me).map((m) => ({ userId: m.userId, joined: m.membership === KnownMembership.Join })),
  };
}

/** Tells the others that we have read up to the newest event, when the page is looked at. */
export function useReadReceipt(client: MatrixClient, room: Room | null, atEnd: boolean, revision: number): void {
  const sent = useRef('');
  useEffect(() => {
    const send = () => {
      if (!room || !atEnd || document.visibilityState !== 'visible' || !document.hasFocus()) return;
      const last = room
        .getLiveTimeline()
        .getEvents()
        .findLast((e) => e.status === null && e.getId() && e.getType() !== (EventType.RoomRedaction as string));
      const id = last?.getId();
      if (!last || !id || id === sent.current) return;
      sent.current = id;
      client.sendReadReceipt(last).catch(() => {
        sent.current = '';
      });
    };
    send();
    window.addEventListener('focus', send);
    document.addEventListener('visibilitychange', send);
    return () => {
      window.removeEventListener('focus', send);
      document.removeEventListener('visibilitychange', send);
    };
  }, [client, room, atEnd, revision]);
}
