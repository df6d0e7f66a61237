// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef, useState } from 'react';
import { useApp } from '../store.ts';
import { Dialog } from '../ui/Dialog.tsx';
import { DevicePickers } from './DevicePickers.tsx';
import { callsImpossible, explainMediaError } from './devices.ts';
import { Video } from './Video.tsx';

/** The stream of the chosen devices while the dialog is open; let go of afterwards. */
function usePreview(mic: string, camera: string): { stream: MediaStream | null; problem: string } {
  const [stream, setStream] = useState<MediaStream | null>(null);
  const [problem, setProblem] = useState('');
  useEffect(() => {
    const impossible = callsImpossible();
    if (impossible) {
      setProblem(impossible);
      return;
    }
    let mine: MediaStream | null = null;
    let stale = false;
    const audio = mic ? { deviceId: { ideal: mic } } : true;
    const video = camera ? { deviceId: { ideal: camera } } : true;
    navigator.mediaDevices
      .getUserMedia({ audio, video })
      .catch(() => navigator.mediaDevices.getUserMedia({ audio }))
      .then(
        (s) => {
          mine = s;
          if (stale) s.getTracks().forEach((t) => t.stop());
          else {
            setStream(s);
            setProblem('');
          }
        },
        (error: unknown) => !stale && setProblem(explainMediaError(error, 'video')),
      );
    return () => {
      stale = true;
      setStream(null);
      mine?.getTracks().forEach((t) => t.stop());
    };
  }, [mic, camera]);
  return { stream, problem };
}

/** Draws how loud the microphone is. */
function Level({ stream }: { stream: MediaStream }) {
  const bar = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    if (stream.getAudioTracks().length === 0) return;
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    analyser.fftSize = 512;
    context.createMediaStreamSource(stream).connect(analyser);
    const data = new Float32Array(analyser.fftSize);
    let frame = requestAnimationFrame(function draw() {
      analyser.getFloatTimeDomainData(data);
      let sum = 0;
      for (const v of data) sum += v * v;
      // Full scale at about -20 dB: ordinary speech reaches the right half.
      const level = Math.min(1, Math.sqrt(sum / data.length) * 10);
      if (bar.current) bar.current.style.transform = `scaleX(${level.toFixed(3)})`;
      frame = requestAnimationFrame(draw);
    });
    return () => {
      cancelAnimationFrame(frame);
      void context.close();
    };
  }, [stream]);
  return (
    <div className="level" role="img" aria-label="Microphone level">
      <span ref={bar} />
    </div>
  );
}

export function DeviceDialog({ onClose }: { onClose: () => void }) {
  const { mic, camera } = useApp((s) => s.devices);
  const { stream, problem } = usePreview(mic, camera);
  return (
    <Dialog title="Camera, microphone, speaker" onClose={onClose} testid="device-dialog">
      <div className="preview">
        {stream && stream.getVideoTracks().length > 0 ? <Video stream={stream} muted label="Preview of your camera" className="is-mirrored" /> : <p>{problem ? '' : stream ? 'No camera' : 'Starting…'}</p>}
      </div>
      {stream && <Level stream={stream} />}
      {problem && (
        <p className="callout callout-problem" role="alert">
          {problem}
        </p>
      )}
      <DevicePickers />
    </Dialog>
  );
}
