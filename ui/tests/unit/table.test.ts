import { expect, test } from 'vitest';
import { sortFunctions } from '../../src/explore/sort_functions';
import { buildModel, sumFunctions } from '../../src/flamegraph';
import type { SortColumn } from '../../src/state/url';

const MODEL = buildModel({
  names: ['total', 'b', 'a', 'c'],
  levels: [{ values: [0, 20, 0, 0] }, { values: [0, 10, 2, 1, 0, 10, 10, 3] }, { values: [2, 8, 8, 2] }],
});

test('functions are sorted by a column, equal values by name', () => {
  const sums = sumFunctions(MODEL);
  const cases: [SortColumn, boolean, string][] = [
    ['name', false, 'abc'],
    ['name', true, 'cba'],
    ['self', true, 'cab'],
    ['self', false, 'bac'],
    ['total', true, 'bca'],
    ['total', false, 'abc'],
  ];
  for (const [column, descending, expected] of cases) {
    const order = Array.from(sortFunctions(MODEL, sums, column, descending), (name) => MODEL.names[name]).join('');
    expect(order, `${column} ${descending}`).toBe(expected);
  }
});
