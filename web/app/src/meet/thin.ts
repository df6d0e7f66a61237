// SPDX-License-Identifier: Apache-2.0
// Frames that others can do without: where a way is narrow, the server leaves them out before it makes the picture smaller.

/** A third of the frames stand on their own, another third needs those, and the rest needs both. */
const MODE = 'L1T3';
const CODECS = ['video/vp8', 'video/h264'];

type Encoding = RTCRtpEncodingParameters & { scalabilityMode?: string };

/**
 * Asks the browser to send a camera in temporal layers, in each of its sizes. livekit-client does not, but for codecs that have their sizes in
 * one stream, which are left alone. False where the browser cannot or will not: then the picture is sent as it was.
 */
export async function sendThinnable(sender: Pick<RTCRtpSender, 'getParameters' | 'setParameters'> | undefined): Promise<boolean> {
  if (!sender) return false;
  try {
    const parameters = sender.getParameters();
    const encodings = parameters.encodings as Encoding[];
    const codec = parameters.codecs?.[0]?.mimeType.toLowerCase();
    if (!encodings?.length || (codec !== undefined && !CODECS.includes(codec)) || encodings.some((e) => e.scalabilityMode && !e.scalabilityMode.startsWith('L1'))) return false;
    for (const encoding of encodings) encoding.scalabilityMode = MODE;
    await sender.setParameters(parameters);
    return (sender.getParameters().encodings as Encoding[]).every((e) => e.scalabilityMode === MODE);
  } catch {
    return false;
  }
}
