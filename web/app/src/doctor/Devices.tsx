// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef, useState } from 'react';

type State = { kind: 'idle' } | { kind: 'asking' } | { kind: 'open'; stream: MediaStream } | { kind: 'failed'; text: string };

/** What a refusal of getUserMedia means for the person, by the DOMException's name. */
export function refusal(name: string): string {
  switch (name) {
    case 'NotAllowedError':
      return 'The browser was told not to let this page use them. Allow it at the lock symbol beside the address, and try again.';
    case 'NotFoundError':
      return 'This device has no microphone and no camera that the browser can find. Plug one in, or look at the system’s privacy settings.';
    case 'NotReadableError':
      return 'Another program holds the camera or the microphone. Close it and try again.';
    default:
      return `The browser does not open them (${name}).`;
  }
}

/** Opens microphone and camera for a moment: a level to speak to and a picture to look at. */
export function Devices() {
  const [state, setState] = useState<State>({ kind: 'idle' });
  const video = useRef<HTMLVideoElement>(null);
  const meter = useRef<HTMLMeterElement>(null);

  useEffect(() => {
    if (state.kind !== 'open') return;
    const { stream } = state;
    if (video.current) video.current.srcObject = stream;
    const audio = new AudioContext();
    const analyser = audio.createAnalyser();
    if (stream.getAudioTracks().length > 0) audio.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    let frame = requestAnimationFrame(function look() {
      analyser.getFloatTimeDomainData(samples);
      const power = Math.sqrt(samples.reduce((sum, s) => sum + s * s, 0) / samples.length);
      if (meter.current) meter.current.value = Math.min(1, power * 6);
      frame = requestAnimationFrame(look);
    });
    return () => {
      cancelAnimationFrame(frame);
      void audio.close();
      stream.getTracks().forEach((t) => t.stop());
    };
  }, [state]);

  const open = async () => {
    setState({ kind: 'asking' });
    for (const want of [{ audio: true, video: true }, { audio: true }, { video: true }]) {
      try {
        setState({ kind: 'open', stream: await navigator.mediaDevices.getUserMedia(want) });
        return;
      } catch (error) {
        const name = error instanceof DOMException ? error.name : String(error);
        setState({ kind: 'failed', text: refusal(name) });
        if (name !== 'NotFoundError') return;
      }
    }
  };

  return (
    <section className="doctor-devices" aria-label="Microphone and camera">
      <h2>Microphone and camera</h2>
      {state.kind === 'open' ? (
        <>
          <video ref={video} autoPlay muted playsInline aria-label="What your camera sees" hidden={state.stream.getVideoTracks().length === 0} />
          <label>
            Say something
            <meter ref={meter} min={0} max={1} low={0.05} optimum={0.5} data-testid="doctor-level" />
          </label>
          <p>
            {state.stream
              .getTracks()
              .map((t) => t.label)
              .join(', ')}
          </p>
          <button className="button" type="button" onClick={() => setState({ kind: 'idle' })}>
            Close them
          </button>
        </>
      ) : (
        <>
          <p>{state.kind === 'failed' ? state.text : 'They are opened for a look and go nowhere.'}</p>
          <button className="button" type="button" onClick={() => void open()} disabled={state.kind === 'asking' || !navigator.mediaDevices} data-testid="doctor-devices">
            {state.kind === 'failed' ? 'Try again' : 'Try them'}
          </button>
        </>
      )}
    </section>
  );
}
