// A profile as the graph needs it: one entry per bar in typed arrays, level by level.
//
// Owns: decoding the levels of an answer, sums per function, paths.
// Does not own: pixels (`layout`), colours (`colours`), the source of the answer.

/** `querier.v1.FlameGraph` in JSON: 64-bit numbers are strings. */
export interface EncodedFlameGraph {
  names?: string[];
  /** Four numbers per bar: gap to the previous bar, total, self, index into `names`. */
  levels?: { values?: (string | number)[] }[];
}

/**
 * Bars in level order: level 0 is the root, the bars of a level are ordered from left to right, and
 * the children of a bar are adjacent. All values are in the unit of the profile type.
 */
export interface FlameModel {
  readonly names: readonly string[];
  readonly count: number;
  readonly depth: number;
  /** The bars of level `d` are `levelStart[d]` until `levelStart[d + 1]`. */
  readonly levelStart: Uint32Array;
  /** Left edge; the children of a bar start at its own left edge. */
  readonly x: Float64Array;
  readonly total: Float64Array;
  readonly self: Float64Array;
  /** Index into `names`. */
  readonly name: Uint32Array;
  readonly level: Uint16Array;
  /** -1 for the root. */
  readonly parent: Int32Array;
  readonly firstChild: Uint32Array;
  readonly childCount: Uint32Array;
}

/** Name of the bar into which the server folds bars that are too small to send. */
export const FOLDED_NAME = 'other';

/** Maximum depth. Deeper levels are cut off. */
const DEPTH_MAX = 4096;

export const ROOT = 0;

/** Decodes an answer. Bars without weight and bars outside any parent are dropped. */
export function buildModel(encoded: EncodedFlameGraph): FlameModel {
  const levels = (encoded.levels ?? []).slice(0, DEPTH_MAX);
  let capacity = 0;
  for (const { values } of levels) capacity += ((values?.length ?? 0) / 4) | 0;
  const builder = new Builder(Math.max(capacity, 1));
  const encodedNames = encoded.names ?? [];
  const nameIds = encodedNames.map((name) => builder.nameId(name));

  // Left edges in the answer, only used to find parents.
  let parentLefts = new Float64Array(0);
  for (let depth = 0; depth < levels.length; depth++) {
    const values = levels[depth]!.values ?? [];
    const lefts = new Float64Array((values.length / 4) | 0);
    const parentFrom = depth === 0 ? 0 : builder.levelStart[depth - 1]!;
    const parentUntil = builder.count;
    let parent = parentFrom;
    let cursor = 0;
    let added = 0;
    builder.beginLevel();
    for (let i = 0; i + 3 < values.length; i += 4) {
      const left = cursor + Number(values[i]);
      const total = Number(values[i + 1]);
      const self = Number(values[i + 2]);
      cursor = left + total;
      if (depth === 0) {
        if (added > 0) break;
        builder.add(-1, nameIds[Number(values[i + 3])] ?? builder.nameId('total'), total, self);
        lefts[added++] = left;
        continue;
      }
      if (!(total > 0)) continue;
      while (parent < parentUntil && left >= parentLefts[parent - parentFrom]! + builder.total[parent]!) parent++;
      if (parent === parentUntil) break;
      if (left < parentLefts[parent - parentFrom]!) continue;
      builder.add(parent, nameIds[Number(values[i + 3])] ?? builder.nameId(''), total, self);
      lefts[added++] = left;
    }
    if (added === 0) break;
    parentLefts = lefts;
  }
  if (builder.count === 0) {
    builder.beginLevel();
    builder.add(-1, builder.nameId('total'), 0, 0);
  }
  return builder.finish();
}

/** Sums per function, indexed like `model.names`. */
export interface FunctionSums {
  readonly self: Float64Array;
  /** A recursive function counts once per stack. */
  readonly total: Float64Array;
  /** Number of bars. */
  readonly bars: Uint32Array;
  /** Names with at least one bar besides the root. */
  readonly present: Uint32Array;
}

export function sumFunctions(model: FlameModel): FunctionSums {
  const self = new Float64Array(model.names.length);
  const total = new Float64Array(model.names.length);
  const bars = new Uint32Array(model.names.length);
  const openBars = new Uint32Array(model.names.length);
  walk(
    model,
    (bar) => {
      if (bar === ROOT) return;
      const name = model.name[bar]!;
      self[name]! += model.self[bar]!;
      bars[name]!++;
      if (openBars[name]!++ === 0) total[name]! += model.total[bar]!;
    },
    (bar) => {
      if (bar !== ROOT) openBars[model.name[bar]!]!--;
    },
  );
  const present: number[] = [];
  for (let name = 0; name < bars.length; name++) if (bars[name]! > 0) present.push(name);
  return { self, total, bars, present: Uint32Array.from(present) };
}

/** Depth-first: enters each bar before its children and leaves it after the last. */
export function walk(model: FlameModel, enter: (bar: number) => void, leave: (bar: number) => void): void {
  if (model.count === 0) return;
  const stack = new Uint32Array(model.depth + 1);
  const next = new Uint32Array(model.depth + 1);
  let top = 0;
  stack[0] = ROOT;
  enter(ROOT);
  for (;;) {
    const bar = stack[top]!;
    const child = next[top]!;
    if (child < model.childCount[bar]!) {
      next[top] = child + 1;
      top++;
      stack[top] = model.firstChild[bar]! + child;
      next[top] = 0;
      enter(stack[top]!);
      continue;
    }
    leave(bar);
    if (top === 0) return;
    top--;
  }
}

/**
 * Removes the stacks without a marked function. The remaining stacks keep their weight; a bar above
 * marked ones weighs as much as they do.
 */
export function filterStacks(model: FlameModel, marked: Uint8Array): FlameModel {
  const inside = new Uint8Array(model.count);
  const weight = new Float64Array(model.count);
  for (let bar = 0; bar < model.count; bar++) {
    const parent = model.parent[bar]!;
    inside[bar] = (bar !== ROOT && marked[model.name[bar]!]) || (parent >= 0 && inside[parent]!) ? 1 : 0;
  }
  for (let bar = model.count - 1; bar >= 0; bar--) {
    if (inside[bar]) weight[bar] = model.total[bar]!;
    const parent = model.parent[bar]!;
    if (parent >= 0 && !inside[parent]) weight[parent]! += weight[bar]!;
  }
  const builder = new Builder(model.count);
  for (const name of model.names) builder.nameId(name);
  const newBar = new Int32Array(model.count).fill(-1);
  for (let depth = 0; depth < model.depth; depth++) {
    const before = builder.count;
    builder.beginLevel();
    for (let bar = model.levelStart[depth]!; bar < model.levelStart[depth + 1]!; bar++) {
      if (bar !== ROOT && !(weight[bar]! > 0)) continue;
      const parent = model.parent[bar]!;
      newBar[bar] = builder.add(parent < 0 ? -1 : newBar[parent]!, model.name[bar]!, weight[bar]!, inside[bar] ? model.self[bar]! : 0);
    }
    if (builder.count === before) break;
  }
  return builder.finish();
}

export function nameOf(model: FlameModel, bar: number): string {
  return model.names[model.name[bar]!] ?? '';
}

/** Bars from the root to `bar`, both included. */
export function ancestry(model: FlameModel, bar: number): number[] {
  const bars: number[] = [];
  for (let ancestor = bar; ancestor >= 0; ancestor = model.parent[ancestor]!) bars.push(ancestor);
  return bars.reverse();
}

/**
 * The shortest suffix of the path to `bar` that `findFocus` resolves to `bar`, as folded text
 * (`caller;function`). Empty for the root.
 */
export function focusKey(model: FlameModel, bar: number): string {
  if (bar === ROOT) return '';
  const path = ancestry(model, bar).map((ancestor) => nameOf(model, ancestor));
  for (let length = 1; length < path.length; length++) {
    const key = path.slice(-length).join(';');
    if (findFocus(model, key) === bar) return key;
  }
  return path.join(';');
}

/** The heaviest bar whose path ends with `key`, or -1. */
export function findFocus(model: FlameModel, key: string): number {
  if (key === '') return -1;
  const path = key.split(';');
  const ids = path.map((name) => model.names.indexOf(name));
  if (ids.includes(-1)) return -1;
  let best = -1;
  for (let bar = 1; bar < model.count; bar++) {
    if (best >= 0 && model.total[bar]! <= model.total[best]!) continue;
    let ancestor = bar;
    let i = ids.length - 1;
    while (i >= 0 && ancestor >= 0 && model.name[ancestor] === ids[i]) {
      ancestor = model.parent[ancestor]!;
      i--;
    }
    if (i < 0) best = bar;
  }
  return best;
}

/** Folded text, one stack per line, as `POST /ingest` and other tools read it. */
export function foldedText(model: FlameModel): string {
  const lines: string[] = [];
  const path: string[] = [];
  walk(
    model,
    (bar) => {
      if (bar !== ROOT) path.push(nameOf(model, bar));
      if (model.self[bar]! > 0 && path.length > 0) lines.push(`${path.join(';')} ${model.self[bar]}`);
    },
    (bar) => {
      if (bar !== ROOT) path.pop();
    },
  );
  return lines.join('\n') + (lines.length > 0 ? '\n' : '');
}

class Builder {
  count = 0;
  readonly levelStart: number[] = [];
  readonly total: Float64Array;
  private readonly x: Float64Array;
  private readonly self: Float64Array;
  private readonly name: Uint32Array;
  private readonly level: Uint16Array;
  private readonly parent: Int32Array;
  private readonly firstChild: Uint32Array;
  private readonly childCount: Uint32Array;
  private readonly childrenTotal: Float64Array;
  private readonly names: string[] = [];
  private readonly ids = new Map<string, number>();

  constructor(capacity: number) {
    this.total = new Float64Array(capacity);
    this.x = new Float64Array(capacity);
    this.self = new Float64Array(capacity);
    this.name = new Uint32Array(capacity);
    this.level = new Uint16Array(capacity);
    this.parent = new Int32Array(capacity);
    this.firstChild = new Uint32Array(capacity);
    this.childCount = new Uint32Array(capacity);
    this.childrenTotal = new Float64Array(capacity);
  }

  nameId(name: string): number {
    const known = this.ids.get(name);
    if (known !== undefined) return known;
    this.ids.set(name, this.names.length);
    return this.names.push(name) - 1;
  }

  beginLevel(): void {
    this.levelStart.push(this.count);
  }

  add(parent: number, name: number, total: number, self: number): number {
    const bar = this.count++;
    this.parent[bar] = parent;
    this.name[bar] = name;
    this.total[bar] = total;
    this.self[bar] = self;
    this.level[bar] = this.levelStart.length - 1;
    if (parent >= 0) {
      this.x[bar] = this.x[parent]! + this.childrenTotal[parent]!;
      this.childrenTotal[parent]! += total;
      if (this.childCount[parent]!++ === 0) this.firstChild[parent] = bar;
    }
    return bar;
  }

  finish(): FlameModel {
    while (this.levelStart.length > 1 && this.levelStart.at(-1) === this.count) this.levelStart.pop();
    const depth = this.levelStart.length;
    return {
      names: this.names,
      count: this.count,
      depth,
      levelStart: Uint32Array.from([...this.levelStart, this.count]),
      x: this.x.subarray(0, this.count),
      total: this.total.subarray(0, this.count),
      self: this.self.subarray(0, this.count),
      name: this.name.subarray(0, this.count),
      level: this.level.subarray(0, this.count),
      parent: this.parent.subarray(0, this.count),
      firstChild: this.firstChild.subarray(0, this.count),
      childCount: this.childCount.subarray(0, this.count),
    };
  }
}
