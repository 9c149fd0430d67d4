import { expect, test } from 'vitest';
import {
  ancestry, buildModel, filterStacks, findFocus, focusKey, foldedText, ROOT, search, sumFunctions, type EncodedFlameGraph, type FlameModel,
} from '../../src/flamegraph';
import { profile } from '../mock/profile';

/** root → a(10: self 4, → b 6: self 2, → a 4), root → c 5 */
const RECURSIVE: EncodedFlameGraph = {
  names: ['total', 'a', 'b', 'c'],
  levels: [
    { values: ['0', '15', '0', '0'] },
    { values: ['0', '10', '4', '1', '0', '5', '5', '3'] },
    { values: ['4', '6', '2', '2'] },
    { values: ['6', '4', '4', '1'] },
  ],
};

function bars(model: FlameModel): [string, number, number, number, number][] {
  return Array.from({ length: model.count }, (_, bar) => [
    model.names[model.name[bar]!]!, model.level[bar]!, model.x[bar]!, model.total[bar]!, model.self[bar]!,
  ]);
}

test('children start at the left edge of their parent, regardless of their position in the answer', () => {
  const model = buildModel(RECURSIVE);
  expect(bars(model)).toEqual([
    ['total', 0, 0, 15, 0],
    ['a', 1, 0, 10, 4],
    ['c', 1, 10, 5, 5],
    ['b', 2, 0, 6, 2],
    ['a', 3, 0, 4, 4],
  ]);
  expect([...model.parent]).toEqual([-1, 0, 0, 1, 3]);
  expect([...model.levelStart]).toEqual([0, 1, 3, 4, 5]);
});

test('an empty answer is a root without weight', () => {
  for (const encoded of [{}, { names: ['total'], levels: [{ values: ['0', '0', '0', '0'] }] }, { names: [], levels: [] }]) {
    const model = buildModel(encoded);
    expect(model.count).toBe(1);
    expect(model.total[ROOT]).toBe(0);
  }
});

test('a malformed answer loses only its malformed bars', () => {
  const model = buildModel({
    names: ['total', 'a'],
    levels: [{ values: ['0', '10', '0', '0'] }, { values: ['0', '10', '10', '99', '50', '4', '4', '1', '7'] }, { values: ['30', '1', '1', '1'] }],
  });
  expect(bars(model)).toEqual([['total', 0, 0, 10, 0], ['', 1, 0, 10, 10]]);
});

test('a recursive function counts once in its total and every time in its self value', () => {
  const model = buildModel(RECURSIVE);
  const sums = sumFunctions(model);
  const sumsOf = (name: string): [number, number, number] => {
    const id = model.names.indexOf(name);
    return [sums.self[id]!, sums.total[id]!, sums.bars[id]!];
  };
  expect(sumsOf('a')).toEqual([8, 10, 2]);
  expect(sumsOf('b')).toEqual([2, 6, 1]);
  expect(sumsOf('c')).toEqual([5, 5, 1]);
  expect(Array.from(sums.present, (id) => model.names[id])).toEqual(['a', 'b', 'c']);
});

test('self values add up to the whole and children fit in their parents, for a large profile', () => {
  const model = buildModel(profile(20_000, 1e12));
  let self = 0;
  for (const value of model.self) self += value;
  expect(self).toBe(1e12);
  const children = new Float64Array(model.count);
  for (let bar = 1; bar < model.count; bar++) children[model.parent[bar]!]! += model.total[bar]!;
  for (let bar = 0; bar < model.count; bar++) expect(children[bar]! + model.self[bar]!).toBe(model.total[bar]!);
});

test('a filter keeps the stacks with a match and reduces the weight of the bars above', () => {
  const model = buildModel(RECURSIVE);
  const filtered = filterStacks(model, search(model, 'b')!.marked);
  expect(bars(filtered)).toEqual([
    ['total', 0, 0, 6, 0],
    ['a', 1, 0, 6, 0],
    ['b', 2, 0, 6, 2],
    ['a', 3, 0, 4, 4],
  ]);
  expect(filterStacks(model, new Uint8Array(model.names.length)).count).toBe(1);
});

test('a focus key is the shortest path suffix that findFocus resolves to the same bar', () => {
  const model = buildModel(RECURSIVE);
  expect(focusKey(model, ROOT)).toBe('');
  expect(focusKey(model, 1)).toBe('a');
  expect(focusKey(model, 4)).toBe('b;a');
  expect(findFocus(model, 'b;a')).toBe(4);
  expect(findFocus(model, 'nowhere')).toBe(-1);
  const large = buildModel(profile(3000, 1e9));
  for (let bar = 1; bar < large.count; bar += 37) expect(findFocus(large, focusKey(large, bar))).toBe(bar);
  expect(ancestry(model, 4)).toEqual([0, 1, 3, 4]);
});

test('folded text has one line per stack with a self value', () => {
  expect(foldedText(buildModel(RECURSIVE))).toBe('a 4\na;b 2\na;b;a 4\nc 5\n');
  expect(foldedText(buildModel({}))).toBe('');
});
