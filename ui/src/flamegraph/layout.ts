// The visible bars and their positions in CSS pixels.
//
// Owns: the mapping from values to pixels, skipping invisible bars.
// Does not own: colours and text (`draw`), scrolling (`view`).
import type { FlameModel } from './model';

export const ROW_HEIGHT = 22;

/** Neighbouring bars that are narrower become one muted sliver. */
const BAR_WIDTH_MIN = 0.5;

/** The visible part of the profile. */
export interface Viewport {
  /** Values at the left and right edge. */
  start: number;
  end: number;
  /** CSS pixels. */
  width: number;
  /** First level, and the level after the last. */
  firstLevel: number;
  endLevel: number;
}

/** Visible bars. The arrays are reused for each frame. */
export class Bars {
  count = 0;
  /** A bar, or `~bar` for a sliver that starts with `bar`. */
  bar = new Int32Array(1024);
  level = new Uint16Array(1024);
  left = new Float32Array(1024);
  width = new Float32Array(1024);

  push(bar: number, level: number, left: number, width: number): void {
    if (this.count === this.bar.length) this.grow();
    this.bar[this.count] = bar;
    this.level[this.count] = level;
    this.left[this.count] = left;
    this.width[this.count] = width;
    this.count++;
  }

  private grow(): void {
    const size = this.bar.length * 2;
    const copy = <T extends Int32Array | Uint16Array | Float32Array>(to: T, from: T): T => {
      to.set(from);
      return to;
    };
    this.bar = copy(new Int32Array(size), this.bar);
    this.level = copy(new Uint16Array(size), this.level);
    this.left = copy(new Float32Array(size), this.left);
    this.width = copy(new Float32Array(size), this.width);
  }
}

/** Fills `out` with the visible bars. The cost depends on their number, not on the size of the profile. */
export function layoutBars(model: FlameModel, viewport: Viewport, out: Bars): void {
  out.count = 0;
  const span = viewport.end - viewport.start;
  if (!(span > 0) || !(viewport.width > 0)) return;
  const scale = viewport.width / span;
  const endLevel = Math.min(viewport.endLevel, model.depth);
  for (let level = Math.max(0, viewport.firstLevel); level < endLevel; level++) {
    const until = model.levelStart[level + 1]!;
    let bar = firstEndingAfter(model, level, viewport.start, model.levelStart[level]!);
    while (bar < until && model.x[bar]! < viewport.end) {
      const left = (model.x[bar]! - viewport.start) * scale;
      const width = model.total[bar]! * scale;
      if (width >= BAR_WIDTH_MIN) {
        const from = Math.max(0, left);
        out.push(bar, level, from, Math.min(viewport.width, left + width) - from);
        bar++;
        continue;
      }
      // A sliver ends at a gap, at a wide bar, or at a width of 8 pixels.
      const first = bar;
      let right = left + width;
      while (++bar < until) {
        const nextLeft = (model.x[bar]! - viewport.start) * scale;
        const nextWidth = model.total[bar]! * scale;
        if (nextWidth >= BAR_WIDTH_MIN || nextLeft - right >= BAR_WIDTH_MIN || right - left >= 8) break;
        right = nextLeft + nextWidth;
      }
      const from = Math.max(0, left);
      const to = Math.min(viewport.width, right);
      if (to - from >= BAR_WIDTH_MIN / 2) out.push(~first, level, from, to - from);
    }
  }
}

/** The bar at a level and a value, or -1. */
export function barAt(model: FlameModel, level: number, value: number): number {
  if (level < 0 || level >= model.depth) return -1;
  const bar = firstEndingAfter(model, level, value, model.levelStart[level]!);
  if (bar >= model.levelStart[level + 1]!) return -1;
  return model.x[bar]! <= value ? bar : -1;
}

/** The first bar of the level, at or after `from`, whose right edge is beyond `value`. */
function firstEndingAfter(model: FlameModel, level: number, value: number, from: number): number {
  let low = from;
  let high = model.levelStart[level + 1]!;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (model.x[middle]! + model.total[middle]! > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

export type Step = 'up' | 'down' | 'left' | 'right';

/** The bar in the direction of an arrow key; the same bar if there is none. */
export function neighbour(model: FlameModel, bar: number, step: Step): number {
  switch (step) {
    case 'up':
      return Math.max(0, model.parent[bar]!);
    case 'down': {
      let best = bar;
      const first = model.firstChild[bar]!;
      for (let child = first; child < first + model.childCount[bar]!; child++) {
        if (best === bar || model.total[child]! > model.total[best]!) best = child;
      }
      return best;
    }
    case 'left':
      return bar > model.levelStart[model.level[bar]!]! ? bar - 1 : bar;
    case 'right':
      return bar + 1 < model.levelStart[model.level[bar]! + 1]! ? bar + 1 : bar;
  }
}
