// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef } from 'react';
import { playOn } from './devices.ts';

interface Props {
  stream: MediaStream | null;
  muted?: boolean;
  speaker?: string;
  className?: string;
  label: string;
  testid?: string;
}

/** A video element that plays a live stream; unlike src, srcObject cannot be set in markup. */
export function Video({ stream, muted = false, speaker = '', className, label, testid }: Props) {
  const ref = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    const el = ref.current;
    if (!el) return;
    if (el.srcObject !== stream) el.srcObject = stream;
    if (stream) el.play().catch(() => {});
    return () => {
      el.srcObject = null;
    };
  }, [stream]);
  useEffect(() => {
    if (ref.current && !muted) void playOn(ref.current, speaker);
  }, [speaker, muted]);
  return <video ref={ref} className={className} autoPlay playsInline muted={muted} aria-label={label} data-testid={testid} />;
}
