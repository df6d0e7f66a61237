// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from 'react';
import { toast, useApp } from '../store.ts';
import { Icon, type IconName } from '../ui/Icon.tsx';
import { useConnection } from '../workspace/context.ts';
import { listDevices, type DeviceChoice, type DeviceLists } from './devices.ts';

const NONE: DeviceLists = { mics: [], cameras: [], speakers: [] };

/** The devices this browser has, kept up to date while something is plugged in or out. */
export function useDeviceLists(): DeviceLists {
  const [lists, setLists] = useState<DeviceLists>(NONE);
  useEffect(() => {
    let stale = false;
    const read = () => void listDevices().then((l) => !stale && setLists(l), () => {});
    read();
    navigator.mediaDevices?.addEventListener('devicechange', read);
    return () => {
      stale = true;
      navigator.mediaDevices?.removeEventListener('devicechange', read);
    };
  }, []);
  return lists;
}

/** Choosers for microphone, camera and speaker; what is chosen counts at once, in a running call too. */
export function DevicePickers() {
  const { calls } = useConnection();
  const choice = useApp((s) => s.devices);
  const lists = useDeviceLists();
  const choose = (change: Partial<DeviceChoice>) => {
    calls.chooseDevices({ ...choice, ...change }).catch(() => toast('That device could not be used.', 'problem'));
  };
  return (
    <div className="pickers">
      <Picker icon="mic" label="Microphone" devices={lists.mics} value={choice.mic} testid="device-mic" onChange={(mic) => choose({ mic })} />
      <Picker icon="video" label="Camera" devices={lists.cameras} value={choice.camera} testid="device-camera" onChange={(camera) => choose({ camera })} />
      {'setSinkId' in HTMLMediaElement.prototype && (
        <Picker icon="speaker" label="Speaker" devices={lists.speakers} value={choice.speaker} testid="device-speaker" onChange={(speaker) => choose({ speaker })} />
      )}
      <label className="check">
        <input type="checkbox" checked={choice.hd} data-testid="device-hd" onChange={(e) => choose({ hd: e.target.checked })} />
        <span>
          High definition camera <small>720p; turn off on a slow line</small>
        </span>
      </label>
    </div>
  );
}

interface PickerProps {
  icon: IconName;
  label: string;
  devices: MediaDeviceInfo[];
  value: string;
  testid: string;
  onChange: (id: string) => void;
}

function Picker({ icon, label, devices, value, testid, onChange }: PickerProps) {
  const known = devices.some((d) => d.deviceId === value);
  return (
    <label className="picker">
      <Icon name={icon} size={18} />
      <span>{label}</span>
      <select value={known ? value : ''} onChange={(e) => onChange(e.target.value)} disabled={devices.length === 0} data-testid={testid}>
        <option value="">{devices.length ? 'Default' : 'None found'}</option>
        {devices
          .filter((d) => d.deviceId !== 'default')
          .map((d, i) => (
            <option key={d.deviceId} value={d.deviceId}>
              {d.label || `${label} ${i + 1}`}
            </option>
          ))}
      </select>
    </label>
  );
}
