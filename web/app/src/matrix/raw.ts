// SPDX-License-Identifier: Apache-2.0

/** How far an event of our own has come: `sent` also stands for everybody else's events. */
export type SendState = 'sending' | 'failed' | 'sent';

/** The part of a Matrix event that the screens need; plain data, so that what they show can be computed and tested without the SDK. */
export interface RawEvent {
  id: string;
  type: string;
  sender: string;
  /** Unix time in milliseconds. */
  ts: number;
  content: Record<string, unknown>;
  stateKey?: string;
  prevContent?: Record<string, unknown>;
  redacted: boolean;
  /** Why an encrypted event cannot be read: the SDK's reason. */
  unreadable?: string;
  state: SendState;
}

/** A string member of an event's content, which a stranger wrote and may have any shape. */
export function text(content: Record<string, unknown>, key: string): string | undefined {
  const value = content[key];
  return typeof value === 'string' ? value : undefined;
}
