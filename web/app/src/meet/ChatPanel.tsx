// SPDX-License-Identifier: Apache-2.0
import { type FormEvent, useEffect, useRef, useState } from 'react';
import { Icon } from '../ui/Icon.tsx';
import { linkify } from '../workspace/linkify.ts';
import { Face } from './Face.tsx';
import { LONGEST } from './chat.ts';
import type { Message } from './state.ts';
import { useMeet, useMeeting, useSurround, useWords } from './use.ts';

/** Messages of the same person within that time stand under one name. */
const TOGETHER_MS = 3 * 60_000;

export function ChatPanel({ to, setTo }: { to: string; setTo: (id: string) => void }) {
  const meeting = useMeeting();
  const w = useWords();
  const messages = useMeet((s) => s.messages);
  const people = useMeet((s) => s.people);
  const encrypted = useMeet((s) => s.e2ee === 'on');
  const [text, setText] = useState('');
  const list = useRef<HTMLDivElement>(null);
  const input = useRef<HTMLTextAreaElement>(null);
  const others = people.filter((p) => !p.local);
  const target = others.find((p) => p.id === to);

  useEffect(() => {
    list.current?.scrollTo({ top: list.current.scrollHeight });
  }, [messages.length]);
  useEffect(() => input.current?.focus(), [to]);

  const send = (e?: FormEvent) => {
    e?.preventDefault();
    const words = text.trim();
    if (!words) return;
    setText('');
    meeting.say(words, target?.id).catch(() => {
      setText((now) => now || words);
      meeting.notice(w.messageFailed, 'problem');
    });
  };

  return (
    <>
      <div className="meet-messages" ref={list} role="log" aria-label={w.chat} tabIndex={0} data-testid="meet-messages">
        {messages.length === 0 && (
          <div className="meet-empty">
            <Icon name="chat" size={34} />
            <p>{w.noMessages}</p>
            <small>{encrypted ? w.noMessagesEncrypted : w.noMessagesHint}</small>
          </div>
        )}
        {messages.map((m, i) => (
          <Line key={m.key} message={m} follows={follows(messages[i - 1], m)} />
        ))}
      </div>
      <form className="meet-write" onSubmit={send}>
        {others.length > 0 && (
          <label className="meet-to">
            {w.to}
            <select value={target?.id ?? ''} data-testid="meet-chat-to" onChange={(e) => setTo(e.target.value)}>
              <option value="">{w.everybody}</option>
              {others.map((p) => (
                <option key={p.id} value={p.id}>
                  {p.name}
                </option>
              ))}
            </select>
          </label>
        )}
        <div className={`meet-write-row ${target ? 'private' : ''}`}>
          <textarea
            ref={input}
            rows={1}
            value={text}
            maxLength={LONGEST}
            placeholder={target ? w.messagePrivate(target.name) : w.messageTo}
            aria-label={target ? w.messagePrivate(target.name) : w.messageTo}
            data-testid="meet-chat-input"
            onChange={(e) => setText(e.target.value)}
            onKeyDown={(e) => {
              if (e.key === 'Enter' && !e.shiftKey && !e.nativeEvent.isComposing) {
                e.preventDefault();
                send();
              }
            }}
          />
          <button type="submit" className="icon-button accent" aria-label={w.send} disabled={!text.trim()} data-testid="meet-chat-send">
            <Icon name="send" size={18} />
          </button>
        </div>
      </form>
    </>
  );
}

function follows(before: Message | undefined, m: Message): boolean {
  return before !== undefined && before.from === m.from && before.private === m.private && before.to === m.to && m.at - before.at < TOGETHER_MS;
}

function Line({ message, follows: quiet }: { message: Message; follows: boolean }) {
  const { words: w, language } = useSurround();
  const time = new Intl.DateTimeFormat(language, { hour: '2-digit', minute: '2-digit' }).format(message.at);
  return (
    <div className={`meet-message ${message.own ? 'own' : ''} ${quiet ? 'follows' : ''} ${message.private ? 'private' : ''}`} data-testid="meet-message">
      {!quiet && !message.own && <Face id={message.from} name={message.name} size="s" />}
      <div>
        {!quiet && (
          <header>
            <bdi>{message.own ? w.you : message.name}</bdi>
            <time dateTime={new Date(message.at).toISOString()}>{time}</time>
            {message.private && <em>{message.own ? w.privateTo(message.to ?? '') : w.privateFrom}</em>}
          </header>
        )}
        <p dir="auto">
          {linkify(message.text).map((part, i) =>
            part.href ? (
              <a key={i} href={part.href} target="_blank" rel="noopener noreferrer nofollow">
                {part.text}
              </a>
            ) : (
              part.text
            ),
          )}
        </p>
      </div>
    </div>
  );
}
