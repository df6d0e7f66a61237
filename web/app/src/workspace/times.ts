// SPDX-License-Identifier: Apache-2.0

const DAY = 24 * 60 * 60 * 1000;

function daysBetween(then: number, now: number): number {
  return Math.round((new Date(now).setHours(0, 0, 0, 0) - new Date(then).setHours(0, 0, 0, 0)) / DAY);
}

export function timeOfDay(ts: number): string {
  return new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' }).format(ts);
}

/** For the list: the time today, the weekday this week, the date before. */
export function shortTime(ts: number, now: number): string {
  const days = daysBetween(ts, now);
  if (days <= 0) return timeOfDay(ts);
  if (days === 1) return 'Yesterday';
  if (days < 7) return new Intl.DateTimeFormat(undefined, { weekday: 'short' }).format(ts);
  return new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' }).format(ts);
}

/** For the line between days. */
export function dayName(ts: number, now: number): string {
  const days = daysBetween(ts, now);
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  const year = new Date(ts).getFullYear() === new Date(now).getFullYear() ? undefined : 'numeric';
  return new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year }).format(ts);
}

export function fileSize(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  const units = ['kB', 'MB', 'GB'];
  let value = bytes / 1024;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}
