// SPDX-License-Identifier: Apache-2.0

/** Cameras are wide: tiles are cut no further than this, but on upright screens, where a face still fits into 3:4. */
const WIDEST = 16 / 9;
const tallest = (width: number, height: number) => (width > height ? 5 / 4 : 3 / 4);

export interface Arrangement {
  columns: number;
  rows: number;
  /** Of one tile, in pixels. */
  width: number;
  height: number;
}

/** The biggest tiles that `n` of them can have in a space. */
export function arrange(n: number, width: number, height: number, gap: number): Arrangement {
  let best: Arrangement = { columns: 1, rows: Math.max(1, n), width: 0, height: 0 };
  for (let columns = 1; columns <= n; columns++) {
    const rows = Math.ceil(n / columns);
    let w = (width - gap * (columns - 1)) / columns;
    let h = (height - gap * (rows - 1)) / rows;
    if (w <= 0 || h <= 0) continue;
    if (w / h > WIDEST) w = h * WIDEST;
    if (w / h < tallest(width, height)) h = w / tallest(width, height);
    if (w * h > best.width * best.height) best = { columns, rows, width: Math.floor(w), height: Math.floor(h) };
  }
  return best;
}

/** How many tiles fit on a page before they become too small to know a face, at most 25. */
export function perPage(width: number, height: number, gap: number): number {
  const columns = Math.max(1, Math.floor((width + gap) / (150 + gap)));
  const rows = Math.max(1, Math.floor((height + gap) / (112 + gap)));
  return Math.min(25, Math.max(2, columns * rows));
}
