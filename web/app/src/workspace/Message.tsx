// SPDX-License-Identifier: Apache-2.0
import type { Room } from 'matrix-js-sdk';
import { memo, useEffect, useMemo, useRef, useState } from 'react';
import { RoomCallCard } from '../group/RoomCallCard.tsx';
import { encryptedFile } from '../matrix/attachments.ts';
import type { MediaSource } from '../matrix/media.ts';
import { text, type RawEvent } from '../matrix/raw.ts';
import { roomCallOf } from '../matrix/roomCall.ts';
import type { TimelineRow } from '../matrix/timeline.ts';
import { unreadable } from '../matrix/verificationWords.ts';
import { wentWrong } from '../matrix/wrong.ts';
import { toast, useApp } from '../store.ts';
import { Avatar } from '../ui/Avatar.tsx';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from './context.ts';
import { linkify } from './linkify.ts';
import { fileSize, timeOfDay } from './times.ts';

interface Props {
  row: Extract<TimelineRow, { kind: 'message' }>;
  name: string;
  room: Room;
}

export function Message({ row, name, room }: Props) {
  const { client } = useConnection();
  const { event, mine, first } = row;
  const sdkEvent = () => room.findEventById(event.id) ?? room.getLiveTimeline().getEvents().find((e) => e.getId() === event.id || e.getTxnId() === event.id);
  const retry = () => {
    const found = sdkEvent();
    if (found) client.resendEvent(found, room).catch(() => {});
  };
  const cancel = () => {
    const found = sdkEvent();
    if (found) client.cancelPendingEvent(found);
  };
  const redact = () => {
    client.redactEvent(room.roomId, event.id).catch((error: unknown) => toast(wentWrong(error), 'problem'));
  };

  return (
    <article
      className={`message ${first ? 'is-first' : ''} ${mine ? 'is-mine' : ''} is-${event.state}`}
      data-testid="message"
      data-sender={event.sender}
      data-state={event.state}
      data-event-id={event.id}
    >
      <div className="message-side">{first ? <Avatar id={event.sender} name={name} size="s" /> : <time className="message-hour">{timeOfDay(event.ts)}</time>}</div>
      <div className="message-main">
        {first && (
          <header>
            <strong>{name}</strong>
            <time dateTime={new Date(event.ts).toISOString()}>{timeOfDay(event.ts)}</time>
          </header>
        )}
        <Body event={event} name={name} room={room} />
        {event.state === 'failed' && (
          <p className="message-failed" role="alert">
            <Icon name="warning" size={16} /> Not sent.
            <button type="button" className="link" onClick={retry} data-testid="message-retry">
              Try again
            </button>
            <button type="button" className="link" onClick={cancel}>
              Delete
            </button>
          </p>
        )}
      </div>
      {mine && event.state === 'sent' && !event.redacted && (
        <button type="button" className="icon-button small message-action" aria-label="Delete this message" title="Delete" data-testid="message-delete" onClick={redact}>
          <Icon name="trash" size={16} />
        </button>
      )}
      {event.state === 'sending' && <span className="message-sending" role="img" aria-label="Sending" title="Sending" />}
    </article>
  );
}

function Body({ event, name, room }: { event: RawEvent; name: string; room: Room }) {
  const { userId } = useConnection();
  if (event.redacted) {
    return (
      <p className="message-gone">
        <Icon name="trash" size={16} /> Message deleted
      </p>
    );
  }
  if (event.unreadable) return <Unreadable code={event.unreadable} />;
  if (event.type === 'm.room.encrypted') {
    return (
      <p className="message-gone">
        <Icon name="lock" size={16} /> Decrypting…
      </p>
    );
  }
  const call = roomCallOf(event, userId);
  if (call) return <RoomCallCard room={room} call={call} at={event.ts} />;
  const type = text(event.content, 'msgtype');
  const source = sourceOf(event);
  if (source && (type === 'm.image' || event.type === 'm.sticker')) return <Picture event={event} />;
  if (source && (type === 'm.file' || type === 'm.audio' || type === 'm.video')) return <FileCard event={event} source={source} />;
  const body = text(event.content, 'body') ?? '';
  return (
    <p className={`message-body ${type === 'm.notice' ? 'is-notice' : ''}`} dir="auto">
      {type === 'm.emote' && <em>{name} </em>}
      <Linked body={body} />
    </p>
  );
}

function Unreadable({ code }: { code: string }) {
  const { phase } = useApp((s) => s.encryption);
  const { words, confirm } = unreadable(code, phase === 'ready');
  return (
    <p className="message-gone" data-testid="message-unreadable" data-code={code}>
      <Icon name="lock" size={16} />
      <span>
        {words}{' '}
        {confirm && phase === 'locked' && (
          <button type="button" className="link" onClick={() => useApp.setState({ confirming: true })}>
            Confirm this device
          </button>
        )}
      </span>
    </p>
  );
}

const Linked = memo(function Linked({ body }: { body: string }) {
  return linkify(body).map((part, i) =>
    part.href ? (
      <a key={i} href={part.href} target="_blank" rel="noreferrer noopener nofollow">
        {part.text}
      </a>
    ) : (
      part.text
    ),
  );
});

function info(event: RawEvent): Record<string, unknown> {
  return event.content.info && typeof event.content.info === 'object' ? (event.content.info as Record<string, unknown>) : {};
}

/** Where the file of a message lies, or undefined when it names none. */
function sourceOf(event: RawEvent): MediaSource | undefined {
  const file = encryptedFile(event.content);
  const mimetype = info(event).mimetype;
  if (file) return { url: file.url, file, mimetype: typeof mimetype === 'string' ? mimetype : undefined };
  const url = text(event.content, 'url');
  return url ? { url } : undefined;
}

const MAX_W = 420;
const MAX_H = 340;

function Picture({ event }: { event: RawEvent }) {
  const { media } = useConnection();
  const [src, setSrc] = useState('');
  const [failed, setFailed] = useState(false);
  const [open, setOpen] = useState(false);
  const name = text(event.content, 'body') ?? 'Picture';
  // The content of an event never changes: one object for each keeps the effect below quiet.
  const source = useMemo(() => sourceOf(event)!, [event.content]);
  const { w, h } = info(event) as { w?: unknown; h?: unknown };
  const sized = typeof w === 'number' && typeof h === 'number' && w > 0 && h > 0;
  const scale = sized ? Math.min(1, MAX_W / w, MAX_H / h) : 1;

  useEffect(() => {
    let stale = false;
    // The original stands in where a server makes no thumbnails.
    media
      .url(source, 800)
      .catch(() => media.url(source))
      .then(
        (address) => !stale && setSrc(address),
        () => !stale && setFailed(true),
      );
    return () => {
      stale = true;
    };
  }, [media, source]);

  if (failed) return <p className="message-gone">This picture could not be loaded.</p>;
  return (
    <>
      <button type="button" className="picture" onClick={() => setOpen(true)} disabled={!src} aria-label={`Open ${name}`} style={sized ? { width: w * scale, aspectRatio: `${w} / ${h}` } : undefined}>
        {src ? <img src={src} alt={name} data-testid="message-image" onError={() => setFailed(true)} /> : <span className="picture-wait" />}
      </button>
      {open && <Lightbox source={source} small={src} name={name} onClose={() => setOpen(false)} />}
    </>
  );
}

/** The whole picture over everything; the small one stands in until it is here. */
function Lightbox({ source, small, name, onClose }: { source: MediaSource; small: string; name: string; onClose: () => void }) {
  const { media } = useConnection();
  const ref = useRef<HTMLDialogElement>(null);
  const [src, setSrc] = useState(small);
  useEffect(() => {
    ref.current?.showModal();
    media.url(source).then(setSrc, () => {});
  }, [media, source]);
  return (
    <dialog ref={ref} className="lightbox" aria-label={name} onClose={onClose} onClick={() => ref.current?.close()}>
      <img src={src} alt={name} />
      <button type="button" className="icon-button" aria-label="Close">
        <Icon name="close" />
      </button>
    </dialog>
  );
}

function FileCard({ event, source }: { event: RawEvent; source: MediaSource }) {
  const { media } = useConnection();
  const [busy, setBusy] = useState(false);
  const name = text(event.content, 'filename') ?? text(event.content, 'body') ?? 'File';
  const size = info(event).size;
  const download = async () => {
    setBusy(true);
    try {
      const address = URL.createObjectURL(await media.blob({ ...source, mimetype: undefined }));
      const link = document.createElement('a');
      link.href = address;
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch {
      toast(`${name} could not be downloaded.`, 'problem');
    }
    setBusy(false);
  };
  return (
    <button type="button" className="file-card" onClick={() => void download()} disabled={busy} data-testid="message-file">
      <span className="file-icon">
        <Icon name="file" />
      </span>
      <span className="file-text">
        <strong>{name}</strong>
        {typeof size === 'number' && <small>{fileSize(size)}</small>}
      </span>
      {busy ? <span className="spinner" aria-label="Downloading" /> : <Icon name="download" size={18} />}
    </button>
  );
}
