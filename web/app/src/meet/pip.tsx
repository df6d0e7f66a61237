// SPDX-License-Identifier: Apache-2.0
// The meeting in a small window over all others: a document of its own where the browser has that, else the big picture alone.
import { useCallback, useEffect, useState, useSyncExternalStore } from 'react';
import { createPortal } from 'react-dom';
import { Icon } from '../ui/Icon.tsx';
import { seenOf, spotlit } from './Stage.tsx';
import { Tile } from './Tile.tsx';
import { useMeet, useMeeting, useWords } from './use.ts';

interface DocumentPip {
  requestWindow(options: { width: number; height: number }): Promise<Window>;
}

const documentPip = (): DocumentPip | undefined => (window as { documentPictureInPicture?: DocumentPip }).documentPictureInPicture;

export function pipPossible(): boolean {
  return (documentPip() !== undefined && window === window.top) || document.pictureInPictureEnabled === true;
}

export interface Pip {
  window?: Window;
  open: boolean;
  toggle: () => void;
  close: () => void;
}

export function usePip(): Pip {
  const [small, setSmall] = useState<Window>();
  const [video, setVideo] = useState(false);

  const close = useCallback(() => {
    small?.close();
    setSmall(undefined);
    if (document.pictureInPictureElement) void document.exitPictureInPicture();
  }, [small]);

  useEffect(() => () => small?.close(), [small]);

  const open = async () => {
    const doc = documentPip();
    if (doc && window === window.top) {
      const w = await doc.requestWindow({ width: 420, height: 260 });
      for (const sheet of document.querySelectorAll('link[rel=stylesheet]')) w.document.head.append(sheet.cloneNode());
      w.document.documentElement.lang = document.documentElement.lang;
      w.document.documentElement.style.colorScheme = document.documentElement.style.colorScheme;
      w.document.title = document.title;
      w.addEventListener('pagehide', () => setSmall(undefined));
      setSmall(w);
      return;
    }
    const element = document.querySelector<HTMLVideoElement>('.meet-big video, .meet-tile video');
    if (!element) return;
    await element.requestPictureInPicture();
    setVideo(true);
    element.addEventListener('leavepictureinpicture', () => setVideo(false), { once: true });
  };
  const isOpen = small !== undefined || video;
  return { window: small, open: isOpen, close, toggle: () => (isOpen ? close() : void open().catch(() => {})) };
}

export function SmallWindow({ window: w, onClose }: { window: Window; onClose: () => void }) {
  return createPortal(<Small onBig={onClose} />, w.document.body);
}

/** Whether the page has no more room than a picture needs: a client shows it so beside something else. */
export function useTiny(): boolean {
  const [query] = useState(() => window.matchMedia?.('(max-width: 340px) and (max-height: 300px)'));
  const watch = useCallback(
    (f: () => void) => {
      query?.addEventListener('change', f);
      return () => query?.removeEventListener('change', f);
    },
    [query],
  );
  return useSyncExternalStore(watch, () => query?.matches ?? false);
}

/** The meeting as one picture, with what one needs at once. */
export function Small({ onBig }: { onBig?: () => void }) {
  const meeting = useMeeting();
  const words = useWords();
  const people = useMeet((s) => s.people);
  const pinned = useMeet((s) => s.pinned);
  const speaker = useMeet((s) => s.speaker);
  const me = useMeet((s) => s.me);
  const big = spotlit(seenOf(people, false), pinned, speaker);
  return (
    <main className="meet-small" data-testid="meet-small">
      {big && <Tile key={`${big.person.id}/${big.what}`} person={big.person} what={big.what} big />}
      <div className="meet-small-bar">
        <button type="button" className={`meet-round ${me?.muted.audio ? 'off' : ''}`} aria-label={me?.muted.audio ? words.unmute : words.mute} onClick={() => void meeting.setMuted('audio', !me?.muted.audio)}>
          <Icon name={me?.muted.audio ? 'micOff' : 'mic'} />
        </button>
        <button type="button" className={`meet-round ${me?.muted.video ? 'off' : ''}`} aria-label={me?.muted.video ? words.cameraStart : words.cameraStop} onClick={() => void meeting.setMuted('video', !me?.muted.video)}>
          <Icon name={me?.muted.video ? 'videoOff' : 'video'} />
        </button>
        {onBig && (
          <button type="button" className="meet-round" aria-label={words.pipLeave} onClick={onBig}>
            <Icon name="expand" />
          </button>
        )}
        <button type="button" className="meet-round hangup" aria-label={words.leave} onClick={() => void meeting.hangUp()}>
          <Icon name="hangup" />
        </button>
      </div>
    </main>
  );
}
