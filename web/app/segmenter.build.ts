// SPDX-License-Identifier: Apache-2.0
// Puts the segmenter behind background blur into the build: MediaPipe's WebAssembly and the model that tells a person from the
// background, both from npm, so that no browser asks anybody else's server for them.
//
// The model comes without the metadata that MediaPipe's ImageSegmenter wants: that its input is a picture, and how its values are
// scaled. Both files are FlatBuffers (https://flatbuffers.dev/internals/), whose offsets point forward only; so a new root, which
// refers to everything of the old one behind it, is put in front of the model, and the metadata with it.
import { readFileSync } from 'node:fs';
import type { Plugin } from 'vite';

const FOLDER = 'assets/segmenter-0.10.14';
const packages = new URL('./node_modules/@mediapipe/', import.meta.url);

export function segmenter(): Plugin {
  return {
    name: 'segmenter',
    apply: 'build',
    generateBundle() {
      // Every browser that can process a camera's frames has SIMD: the form without it is left out.
      for (const file of ['vision_wasm_internal.js', 'vision_wasm_internal.wasm']) this.emitFile({ type: 'asset', fileName: `${FOLDER}/${file}`, source: readFileSync(new URL(`tasks-vision/wasm/${file}`, packages)) });
      this.emitFile({ type: 'asset', fileName: `${FOLDER}/selfie.tflite`, source: describe(readFileSync(new URL('selfie_segmentation/selfie_segmentation.tflite', packages))) });
    },
  };
}

/** A value in a table, by its field's number: a byte, or what an offset leads to. */
type Field = { byte: number } | { word: number } | Node;
type Node = { table: (Field | undefined)[] } | { text: string } | { floats: number[] } | { list: Node[] } | { bytes: Uint8Array } | { old: number };

/** Writes nodes one behind the other, each before what it refers to. */
class Writer {
  private readonly out: number[] = [];
  private readonly later: { at: number; to: number }[] = [];

  constructor(private readonly magic: string) {}

  /** The finished buffer. `behind` follows it; nodes `old` are offsets into that. */
  finish(root: Node, behind = new Uint8Array()): Uint8Array {
    this.out.length = 0;
    this.number(0, 4);
    for (const c of this.magic) this.out.push(c.charCodeAt(0));
    this.patch(0, this.node(root));
    while (this.out.length % 16) this.out.push(0);
    for (const { at, to } of this.later) this.patch(at, this.out.length + to);
    return Uint8Array.from([...this.out, ...behind]);
  }

  private number(value: number, size: number): number {
    while (this.out.length % size) this.out.push(0);
    const at = this.out.length;
    for (let i = 0; i < size; i++) this.out.push((value >> (8 * i)) & 255);
    return at;
  }

  private patch(at: number, target: number): void {
    const value = target - at;
    for (let i = 0; i < 4; i++) this.out[at + i] = (value >> (8 * i)) & 255;
  }

  private refer(at: number, node: Node): void {
    if ('old' in node) this.later.push({ at, to: node.old });
    else this.patch(at, this.node(node));
  }

  private node(node: Node): number {
    if ('old' in node) throw new Error('an old node has a place already');
    if ('table' in node) return this.table(node.table);
    const data = 'text' in node ? new TextEncoder().encode(node.text) : 'bytes' in node ? node.bytes : 'floats' in node ? new Uint8Array(Float32Array.from(node.floats).buffer) : undefined;
    // What TensorFlow reads in place lies on a multiple of 16.
    if ('bytes' in node) while ((this.out.length + 4) % 16) this.out.push(0);
    const at = this.number('list' in node ? node.list.length : 'floats' in node ? node.floats.length : data!.length, 4);
    if (data) {
      this.out.push(...data);
      if ('text' in node) this.out.push(0);
    } else if ('list' in node) {
      const slots = node.list.map(() => this.number(0, 4));
      node.list.forEach((item, i) => this.refer(slots[i]!, item));
    }
    return at;
  }

  private table(fields: (Field | undefined)[]): number {
    // Table: offset to the vtable, then a word for each field. The vtable stands in front.
    const head = 4 + 2 * fields.length;
    while ((this.out.length + head) % 4) this.out.push(0);
    const vtable = this.number(head, 2);
    this.number(4 + 4 * fields.length, 2);
    fields.forEach((f, i) => this.number(f === undefined ? 0 : 4 + 4 * i, 2));
    const at = this.number(this.out.length - vtable, 4);
    const slots = fields.map((f) => this.number(f && 'byte' in f ? f.byte : f && 'word' in f ? f.word : 0, 4));
    fields.forEach((f, i) => f && !('byte' in f) && !('word' in f) && this.refer(slots[i]!, f));
    return at;
  }
}

/** ModelMetadata of TensorFlow Lite: one input, an RGB picture whose values become 0 to 1, and one output. */
function metadata(): Uint8Array {
  const scaled = { table: [{ byte: 1 }, { table: [{ floats: [0] }, { floats: [255] }] }] }; // ProcessUnit: NormalizationOptions
  const picture = { table: [{ byte: 2 }, { table: [{ byte: 1 }] }] }; // Content: ImageProperties, RGB
  const input = { table: [{ text: 'image' }, undefined, undefined, picture, { list: [scaled] }] };
  const output = { table: [{ text: 'person' }] };
  const graph = { table: [undefined, undefined, { list: [input] }, { list: [output] }] };
  return new Writer('M001').finish({ table: [{ text: 'selfie segmentation' }, undefined, undefined, { list: [graph] }, undefined, undefined, undefined, { text: '1.0.0' }] });
}

/** The model with its metadata. */
export function describe(model: Uint8Array): Uint8Array {
  const view = new DataView(model.buffer, model.byteOffset, model.byteLength);
  const root = view.getUint32(0, true);
  const vtable = root - view.getInt32(root, true);
  const field = (i: number): number | undefined => {
    const offset = 4 + 2 * i < view.getUint16(vtable, true) ? view.getUint16(vtable + 4 + 2 * i, true) : 0;
    return offset ? root + offset : undefined;
  };
  const target = (at: number): number => at + view.getUint32(at, true);
  const old = (i: number): Node | undefined => {
    const at = field(i);
    return at === undefined ? undefined : { old: target(at) };
  };
  const items = (at: number): Node[] => Array.from({ length: view.getUint32(at, true) }, (_, i) => ({ old: target(at + 4 + 4 * i) }));
  const version = field(0);
  const buffers = field(4);
  if (version === undefined || buffers === undefined || field(6) !== undefined) throw new Error('this is not the model without metadata that was expected');
  // Model: version, operator_codes, subgraphs, description, buffers, metadata_buffer, metadata.
  const all = items(target(buffers));
  const entry: Node = { table: [{ text: 'TFLITE_METADATA' }, { word: all.length }] };
  const fresh: Node = { table: [{ bytes: metadata() }] };
  return new Writer('TFL3').finish({ table: [{ word: view.getUint32(version, true) }, old(1), old(2), old(3), { list: [...all, fresh] }, old(5), { list: [entry] }] }, model);
}
