// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from 'react';
import { Icon, type IconName } from '../ui/Icon.tsx';
import { useMeet, useMeeting, useWords } from './use.ts';

const NONE: MediaDeviceInfo[] = [];

/** The devices of this browser, kept up to date; they have names only once one may be used. */
function useList(again: unknown): MediaDeviceInfo[] {
  const [list, setList] = useState(NONE);
  useEffect(() => {
    let stale = false;
    const read = () => void navigator.mediaDevices?.enumerateDevices().then((all) => !stale && setList(all), () => {});
    read();
    navigator.mediaDevices?.addEventListener('devicechange', read);
    return () => {
      stale = true;
      navigator.mediaDevices?.removeEventListener('devicechange', read);
    };
  }, [again]);
  return list;
}

/** Choosers for camera, microphone and speaker. What is chosen counts at once. */
export function DeviceFields() {
  const meeting = useMeeting();
  const w = useWords();
  const chosen = useMeet((s) => s.options.devices);
  const starting = useMeet(() => meeting.preview.state.starting);
  const list = useList(starting);
  const field = (icon: IconName, label: string, kind: MediaDeviceKind, value: string | undefined) => {
    const devices = list.filter((d) => d.kind === kind && d.deviceId !== '' && d.deviceId !== 'default' && d.deviceId !== 'communications');
    const known = devices.some((d) => d.deviceId === value);
    return (
      <label className="meet-device" key={kind}>
        <Icon name={icon} size={18} />
        <span className="meet-hidden">{label}</span>
        <select
          value={known ? value : ''}
          disabled={devices.length === 0}
          data-testid={`meet-${kind}`}
          onChange={(e) => void meeting.useDevice(kind, e.target.value).catch(() => meeting.notice(w.deviceFailed, 'problem'))}
        >
          <option value="">{devices.length ? `${label}: ${w.standard}` : `${label}: ${w.noDevice}`}</option>
          {devices.map((d, i) => (
            <option key={d.deviceId} value={d.deviceId}>
              {d.label || w.device(label, i + 1)}
            </option>
          ))}
        </select>
      </label>
    );
  };
  return (
    <div className="meet-devices">
      {field('mic', w.microphone, 'audioinput', chosen?.audioInput)}
      {field('video', w.camera, 'videoinput', chosen?.videoInput)}
      {'setSinkId' in HTMLMediaElement.prototype && field('speaker', w.speaker, 'audiooutput', chosen?.audioOutput)}
    </div>
  );
}
