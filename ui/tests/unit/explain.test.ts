import { expect, test } from 'vitest';
import { readExplained } from '../../src/api/explain';

test('an explanation is parsed, and kept as received', () => {
  const raw = { found: { objects: 3 }, snapshot: { staleMillis: 1500, startedOver: true }, units: { slowest: [{ leaf: 'querier-1', retried: 'gone' }] }, more: 1 };
  const read = readExplained({ questions: [raw] }, 7)!;
  expect([read.raw, read.answeredAt]).toEqual([raw, 7]);
  expect(read.explanation.found).toEqual({ objects: 3, datasets: 0, estimatedBytes: 0 });
  expect(read.explanation.snapshot).toEqual({ version: 0, epoch: 0, staleMillis: 1500, startedOver: true });
  expect(read.explanation.units.slowest).toMatchObject([{ leaf: 'querier-1', retried: 'gone', hedged: false }]);
});

test('absent parts and parts of the wrong type are zero or empty', () => {
  for (const raw of [{}, null, 7, { found: [], units: { slowest: {} }, missing: { first: null }, snapshot: { staleMillis: null } }]) {
    const { explanation } = readExplained({ questions: [raw] }, 7)!;
    expect(explanation.found.objects).toBe(0);
    expect([explanation.units.slowest, explanation.missing.first, explanation.snapshot.staleMillis]).toEqual([[], [], null]);
  }
});

test('an answer without an explanation has none', () => {
  for (const field of [undefined, null, 7, {}, { questions: [] }, { questions: 7 }]) expect(readExplained(field, 7)).toBeNull();
});
