// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from 'react';
import { Dialog } from '../ui/Dialog.tsx';
import type { MeetingRecord } from './api.ts';
import { clock } from './dialogs.tsx';
import { useMeeting, useSurround } from './use.ts';

/** For hosts: when people met here, who came, and for how long. */
export function RecordsDialog({ onClose }: { onClose: () => void }) {
  const meeting = useMeeting();
  const { words: w, language } = useSurround();
  const [records, setRecords] = useState<MeetingRecord[]>();
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let stale = false;
    meeting.records().then(
      (list) => !stale && setRecords(list),
      () => !stale && setFailed(true),
    );
    return () => {
      stale = true;
    };
  }, [meeting]);
  const day = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' });
  const time = new Intl.DateTimeFormat(language, { hour: '2-digit', minute: '2-digit' });
  return (
    <Dialog title={w.records} onClose={onClose} closeLabel={w.close} testid="meet-records">
      {failed && <p role="alert">{w.failedTitle}</p>}
      {!failed && !records && <p role="status">…</p>}
      {records?.length === 0 && <p>{w.recordsNone}</p>}
      {records?.map((r) => (
        <details key={r.started} className="meet-record" data-testid="meet-record" open={r === records[0]}>
          <summary>
            <strong>{day.format(r.started)}</strong>
            <span>{r.ended ? clock(r.ended - r.started) : w.recordsNow}</span>
            {r.subject && <bdi>{r.subject}</bdi>}
          </summary>
          <ul>
            {r.people.map((p, i) => (
              <li key={i} data-testid="meet-visit">
                <bdi>{p.display_name || p.user_id}</bdi>
                <span>
                  {time.format(p.came)} – {p.went ? time.format(p.went) : w.recordsNow}
                </span>
              </li>
            ))}
          </ul>
        </details>
      ))}
    </Dialog>
  );
}
