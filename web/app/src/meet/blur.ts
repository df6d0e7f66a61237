// SPDX-License-Identifier: Apache-2.0
// Background blur. Loaded when somebody switches it on: the segmenter and its model are ten megabytes, from this server.
import { BackgroundProcessor, supportsBackgroundProcessors } from '@livekit/track-processors';
import type { LocalVideoTrack } from 'livekit-client';
import { SEGMENTER, SEGMENTER_MODEL } from './segmenter.ts';

const RADIUS = 12;

/** Blurs what is behind the person in front of a camera until stop() is called. Throws where the browser cannot. */
export async function blurred(camera: LocalVideoTrack): Promise<{ stop(): Promise<void> }> {
  if (!supportsBackgroundProcessors()) throw new Error('this browser has no track processors');
  await camera.setProcessor(BackgroundProcessor({ mode: 'background-blur', blurRadius: RADIUS, assetPaths: { tasksVisionFileSet: SEGMENTER, modelAssetPath: SEGMENTER_MODEL } }));
  return { stop: () => camera.stopProcessor() };
}
