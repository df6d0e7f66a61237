// SPDX-License-Identifier: Apache-2.0
// Where the build puts the segmenter that tells a person from the background (vite.config.ts).

export const SEGMENTER = '/assets/segmenter-0.10.14';
export const SEGMENTER_MODEL = '/assets/segmenter-0.10.14/selfie.tflite';
