// SPDX-License-Identifier: Apache-2.0
import { MsgType } from 'matrix-js-sdk';
import { useEffect, useLayoutEffect, useRef, useState, type FormEvent, type KeyboardEvent } from 'react';
import { Icon } from '../ui/Icon.tsx';
import { useConnection } from './context.ts';

/** The server forgets that we type after this time; we say it again before. */
const TYPING_MS = 15_000;
const TYPING_AGAIN_MS = 8_000;

interface Props {
  roomId: string;
  onFiles: (files: Iterable<File>) => void;
  typing: string[];
}

function typingWords(names: string[]): string {
  if (names.length === 0) return '';
  if (names.length === 1) return `${names[0]} is typing`;
  if (names.length === 2) return `${names[0]} and ${names[1]} are typing`;
  return 'Several people are typing';
}

export function Composer({ roomId, onFiles, typing }: Props) {
  const { client } = useConnection();
  const [words, setWords] = useState(() => sessionStorage.getItem(`draft:${roomId}`) ?? '');
  const area = useRef<HTMLTextAreaElement>(null);
  const files = useRef<HTMLInputElement>(null);
  const saidTyping = useRef(0);

  useLayoutEffect(() => {
    const el = area.current;
    if (!el) return;
    el.style.height = 'auto';
    el.style.height = `${Math.min(el.scrollHeight, 180)}px`;
  }, [words]);

  useEffect(() => {
    if (words) sessionStorage.setItem(`draft:${roomId}`, words);
    else sessionStorage.removeItem(`draft:${roomId}`);
  }, [roomId, words]);

  const stopTyping = () => {
    if (!saidTyping.current) return;
    saidTyping.current = 0;
    client.sendTyping(roomId, false, 0).catch(() => {});
  };

  // A person who walks away from the room does not type in it.
  useEffect(() => () => stopTyping(), [roomId]);

  // On a phone the keyboard would jump up with every room.
  useEffect(() => {
    if (window.matchMedia('(min-width: 721px)').matches) area.current?.focus();
  }, [roomId]);

  const change = (next: string) => {
    setWords(next);
    if (!next.trim()) return stopTyping();
    if (Date.now() - saidTyping.current > TYPING_AGAIN_MS) {
      saidTyping.current = Date.now();
      client.sendTyping(roomId, true, TYPING_MS).catch(() => {});
    }
  };

  const send = (event?: FormEvent) => {
    event?.preventDefault();
    const body = words.trim();
    if (!body) return;
    setWords('');
    stopTyping();
    // A failure shows on the message itself, with a button to try again.
    client.sendMessage(roomId, { msgtype: MsgType.Text, body }).catch(() => {});
  };

  const onKey = (event: KeyboardEvent) => {
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    send();
  };

  return (
    <form className="composer" onSubmit={send}>
      <p className="typing" role="status" aria-live="polite" data-testid="typing">
        {typing.length > 0 && (
          <>
            <span className="dots" aria-hidden="true">
              <i />
              <i />
              <i />
            </span>
            {typingWords(typing)}
          </>
        )}
      </p>
      <div className="composer-box">
        <button type="button" className="icon-button" aria-label="Attach a file" title="Attach a file" onClick={() => files.current?.click()}>
          <Icon name="attach" />
        </button>
        <input
          ref={files}
          type="file"
          multiple
          hidden
          data-testid="composer-file"
          onChange={(e) => {
            onFiles([...(e.target.files ?? [])]);
            e.target.value = '';
          }}
        />
        <textarea
          ref={area}
          rows={1}
          data-testid="composer"
          aria-label="Message"
          placeholder="Write a message"
          value={words}
          onChange={(e) => change(e.target.value)}
          onKeyDown={onKey}
          onPaste={(e) => {
            const pasted = [...e.clipboardData.files];
            if (pasted.length === 0) return;
            e.preventDefault();
            onFiles(pasted);
          }}
        />
        <button type="submit" className="icon-button send" aria-label="Send" title="Send" disabled={!words.trim()} data-testid="composer-send">
          <Icon name="send" />
        </button>
      </div>
    </form>
  );
}
