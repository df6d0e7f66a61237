// SPDX-License-Identifier: Apache-2.0
import { createContext, useContext, useSyncExternalStore } from 'react';
import type { Meeting } from './meeting.ts';
import type { State } from './state.ts';
import type { Language, Words } from './words.ts';

export interface Surround {
  meeting: Meeting;
  words: Words;
  language: Language;
  setLanguage: (language: Language) => void;
}

export const MeetContext = createContext<Surround | null>(null);

export function useSurround(): Surround {
  const surround = useContext(MeetContext);
  if (!surround) throw new Error('outside of a meeting');
  return surround;
}

export const useWords = (): Words => useSurround().words;
export const useMeeting = (): Meeting => useSurround().meeting;

/** A part of the meeting's state; `pick` must return a value that is kept as long as it has not changed. */
export function useMeet<T>(pick: (state: State) => T): T {
  const { meeting } = useSurround();
  return useSyncExternalStore(meeting.watch, () => pick(meeting.snapshot));
}

/** Whether an embedder left this button in the toolbar. */
export function useShown(): (key: string) => boolean {
  const buttons = useMeet((s) => s.options.toolbarButtons);
  return (key) => !buttons || buttons.includes(key);
}
