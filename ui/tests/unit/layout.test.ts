import { expect, test } from 'vitest';
import { buildModel, ROOT } from '../../src/flamegraph';
import { barAt, Bars, layoutBars, neighbour, type Viewport } from '../../src/flamegraph/layout';
import { profile } from '../mock/profile';

const MODEL = buildModel({
  names: ['total', 'a', 'b', 'c'],
  levels: [{ values: [0, 100, 0, 0] }, { values: [0, 60, 0, 1, 0, 40, 40, 2] }, { values: [0, 60, 60, 3] }],
});

function layout(viewport: Partial<Viewport>): [number, number, number, number][] {
  const out = new Bars();
  layoutBars(MODEL, { start: 0, end: 100, width: 1000, firstLevel: 0, endLevel: 10, ...viewport }, out);
  return Array.from({ length: out.count }, (_, i) => [out.bar[i]!, out.level[i]!, out.left[i]!, out.width[i]!]);
}

test('positions are proportional to values', () => {
  expect(layout({})).toEqual([[0, 0, 0, 1000], [1, 1, 0, 600], [2, 1, 600, 400], [3, 2, 0, 600]]);
});

test('a zoomed viewport shows its part of the profile, clipped to its width', () => {
  expect(layout({ start: 60, end: 100 })).toEqual([[0, 0, 0, 1000], [2, 1, 0, 1000]]);
  expect(layout({ start: 30, end: 80 })).toEqual([[0, 0, 0, 1000], [1, 1, 0, 600], [2, 1, 600, 400], [3, 2, 0, 600]]);
});

test('invisible levels are not laid out', () => {
  expect(layout({ firstLevel: 2 }).map(([bar]) => bar)).toEqual([3]);
  expect(layout({ firstLevel: 7 })).toEqual([]);
});

test('nothing is laid out without width or extent', () => {
  expect(layout({ width: 0 })).toEqual([]);
  expect(layout({ start: 5, end: 5 })).toEqual([]);
});

test('bars too small to see become slivers, so the cost depends on the screen', () => {
  const values = Array.from({ length: 50_000 }, () => [0, 1, 1, 1]).flat();
  const model = buildModel({ names: ['total', 'a'], levels: [{ values: [0, 50_000, 0, 0] }, { values }] });
  const out = new Bars();
  layoutBars(model, { start: 0, end: 50_000, width: 1000, firstLevel: 0, endLevel: 2 }, out);
  expect(out.count).toBeLessThan(300);
  expect(out.bar[1]).toBeLessThan(0);
  let covered = 0;
  for (let i = 1; i < out.count; i++) covered += out.width[i]!;
  expect(covered).toBeCloseTo(1000, 0);
});

test('barAt finds the bar at a point on every level of a large profile', () => {
  const model = buildModel(profile(5000, 1e9));
  for (let bar = 0; bar < model.count; bar += 11) {
    expect(barAt(model, model.level[bar]!, model.x[bar]! + model.total[bar]! / 2)).toBe(bar);
  }
  expect(barAt(MODEL, 2, 70)).toBe(-1);
  expect(barAt(MODEL, -1, 10)).toBe(-1);
  expect(barAt(MODEL, 9, 10)).toBe(-1);
});

test('arrows move to parent, heaviest child and neighbours, and stop at the edge', () => {
  expect(neighbour(MODEL, 3, 'up')).toBe(1);
  expect(neighbour(MODEL, ROOT, 'up')).toBe(ROOT);
  expect(neighbour(MODEL, ROOT, 'down')).toBe(1);
  expect(neighbour(MODEL, 3, 'down')).toBe(3);
  expect(neighbour(MODEL, 1, 'right')).toBe(2);
  expect(neighbour(MODEL, 2, 'right')).toBe(2);
  expect(neighbour(MODEL, 1, 'left')).toBe(1);
});
