// SPDX-License-Identifier: Apache-2.0
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from 'react';
import { displayName } from '../matrix/names.ts';
import { Avatar } from '../ui/Avatar.tsx';
import { Icon } from '../ui/Icon.tsx';
import { CallTile } from './CallTile.tsx';
import { useConnection } from './context.ts';
import { Message } from './Message.tsx';
import { dayName } from './times.ts';
import type { Upload, useUploads } from './uploads.ts';
import { useReadReceipt, type RoomModel } from './useRoom.ts';

/** Closer to the end than this many pixels counts as reading the newest. */
const NEAR_END = 80;
/** Closer to the top than this many pixels asks for older messages. */
const NEAR_TOP = 300;

interface Props {
  roomId: string;
  model: RoomModel;
  uploads: ReturnType<typeof useUploads>;
}

export function Timeline({ roomId, model, uploads }: Props) {
  const { client } = useConnection();
  const scroller = useRef<HTMLDivElement>(null);
  const [atEnd, setAtEnd] = useState(true);
  const [news, setNews] = useState(0);
  const keep = useRef<{ height: number; top: number; firstKey?: string }>({ height: 0, top: 0 });
  const { room, rows, readers, canPaginate, paginating, loadOlder } = model;
  const lastKey = rows.at(-1)?.key;
  const firstKey = rows[0]?.key;
  useReadReceipt(client, room, atEnd, model.revision);

  const toEnd = useCallback(() => {
    const el = scroller.current;
    if (el) el.scrollTop = el.scrollHeight;
    setNews(0);
  }, []);

  // Older rows above push the view down by their own height; newer rows below follow when the reader is at the end.
  useLayoutEffect(() => {
    const el = scroller.current;
    if (!el) return;
    if (keep.current.firstKey !== undefined && keep.current.firstKey !== firstKey && !atEnd) {
      el.scrollTop = keep.current.top + (el.scrollHeight - keep.current.height);
    } else if (atEnd) {
      el.scrollTop = el.scrollHeight;
    }
    keep.current = { height: el.scrollHeight, top: el.scrollTop, firstKey };
  });

  useEffect(() => {
    if (!atEnd) setNews((n) => n + 1);
    // Only a new last row is news.
  }, [lastKey]);

  const onScroll = () => {
    const el = scroller.current;
    if (!el) return;
    const end = el.scrollHeight - el.scrollTop - el.clientHeight < NEAR_END;
    setAtEnd(end);
    if (end) setNews(0);
    keep.current = { height: el.scrollHeight, top: el.scrollTop, firstKey };
    if (el.scrollTop < NEAR_TOP && canPaginate && !paginating) void loadOlder();
  };

  // A short first page leaves nothing to scroll: fetch until the screen is full.
  useEffect(() => {
    const el = scroller.current;
    if (el && el.scrollHeight <= el.clientHeight + NEAR_TOP && canPaginate && !paginating) void loadOlder().catch(() => {});
  }, [rows.length, canPaginate, paginating, loadOlder]);

  // Pictures that load late, and a keyboard that opens, change heights after layout.
  useEffect(() => {
    const el = scroller.current;
    const inner = el?.firstElementChild;
    if (!el || !inner) return;
    const observer = new ResizeObserver(() => atEnd && (el.scrollTop = el.scrollHeight));
    observer.observe(inner);
    observer.observe(el);
    return () => observer.disconnect();
  }, [atEnd]);

  return (
    <div className="timeline-wrap">
      <div className="timeline" ref={scroller} onScroll={onScroll} tabIndex={0} role="log" aria-label="Messages" data-testid="timeline">
        <div className="timeline-inner">
          {paginating && (
            <p className="timeline-more" role="status">
              <span className="spinner" aria-hidden="true" /> Older messages
            </p>
          )}
          {rows.map((row) => {
            switch (row.kind) {
              case 'day':
                return (
                  <div key={row.key} className="day">
                    <span>{dayName(row.ts, Date.now())}</span>
                  </div>
                );
              case 'notice':
                return (
                  <div key={row.key} className="row">
                    <p className="notice">{row.words}</p>
                    <Readers ids={readers.get(row.event.id)} room={room} />
                  </div>
                );
              case 'call':
                return (
                  <div key={row.key} className="row">
                    <CallTile roomId={roomId} row={row} />
                    <Readers ids={readers.get(row.event.id)} room={room} />
                  </div>
                );
              case 'message':
                return (
                  <div key={row.key} className="row">
                    <Message row={row} name={displayName(room, row.event.sender)} room={room!} />
                    <Readers ids={readers.get(row.event.id)} room={room} />
                  </div>
                );
            }
          })}
          {uploads.uploads.map((u) => (
            <UploadRow key={u.key} upload={u} onRetry={() => uploads.retry(u)} onDrop={() => uploads.drop(u.key)} />
          ))}
        </div>
      </div>
      {!atEnd && (
        <button type="button" className="to-end" onClick={toEnd} aria-label="Go to the newest message">
          {news > 0 ? `${news} new` : 'Newest'} <Icon name="download" size={16} />
        </button>
      )}
    </div>
  );
}

/** At most this many avatars under a message. */
const MAX_READERS = 5;

function Readers({ ids, room }: { ids?: string[]; room: RoomModel['room'] }) {
  if (!ids?.length) return null;
  const names = ids.map((id) => displayName(room, id));
  return (
    <div className="readers" role="img" aria-label={`Read by ${names.join(', ')}`} title={`Read by ${names.join(', ')}`} data-testid="readers">
      {ids.slice(0, MAX_READERS).map((id, i) => (
        <Avatar key={id} id={id} name={names[i]!} size="xs" />
      ))}
      {ids.length > MAX_READERS && <small>+{ids.length - MAX_READERS}</small>}
    </div>
  );
}

function UploadRow({ upload, onRetry, onDrop }: { upload: Upload; onRetry: () => void; onDrop: () => void }) {
  return (
    <div className="upload" data-testid="upload">
      <Icon name="file" />
      <span className="upload-name">{upload.name}</span>
      {upload.failed ? (
        <>
          <button type="button" className="link" onClick={onRetry}>
            Try again
          </button>
          <button type="button" className="icon-button small" aria-label={`Do not send ${upload.name}`} onClick={onDrop}>
            <Icon name="close" size={16} />
          </button>
        </>
      ) : (
        <progress value={upload.done} max={1} aria-label={`Sending ${upload.name}`} />
      )}
    </div>
  );
}
