import { expect, test } from 'vitest';
import { readExplained } from '../../src/api/explain';

test('what a server tells of a question is read, and kept as it came', () => {
  const told = { found: { objects: 3 }, snapshot: { staleMillis: 1500, startedOver: true }, units: { slowest: [{ leaf: 'querier-1', retried: 'gone' }] }, more: 1 };
  const read = readExplained({ questions: [told] }, 7)!;
  expect([read.told, read.at]).toEqual([told, 7]);
  expect(read.explanation.found).toEqual({ objects: 3, datasets: 0, estimatedBytes: 0 });
  expect(read.explanation.snapshot).toEqual({ version: 0, epoch: 0, staleMillis: 1500, startedOver: true });
  expect(read.explanation.units.slowest).toMatchObject([{ leaf: 'querier-1', retried: 'gone', hedged: false }]);
});

test('parts that are absent or of another type are as if nothing happened', () => {
  for (const told of [{}, null, 7, { found: [], units: { slowest: {} }, missing: { first: null }, snapshot: { staleMillis: null } }]) {
    const { explanation } = readExplained({ questions: [told] }, 7)!;
    expect(explanation.found.objects).toBe(0);
    expect([explanation.units.slowest, explanation.missing.first, explanation.snapshot.staleMillis]).toEqual([[], [], null]);
  }
});

test('an answer without a field that explains tells nothing', () => {
  for (const field of [undefined, null, 7, {}, { questions: [] }, { questions: 7 }]) expect(readExplained(field, 7)).toBeNull();
});
