import { expect, test } from 'vitest';
import { buildModel, search } from '../../src/flamegraph';
import { splitTerms } from '../../src/flamegraph/search';
import { check } from './check';

const MODEL = buildModel({
  names: ['total', 'main.run', 'Main.stop', 'x(y)'],
  levels: [{ values: [0, 10, 0, 0] }, { values: [0, 6, 2, 1, 0, 4, 4, 3] }, { values: [2, 4, 4, 2] }],
});

function found(text: string): string[] | null {
  const result = search(MODEL, text);
  return result && MODEL.names.filter((_, id) => result.marked[id]);
}

test('a term is a regular expression, or case-insensitive plain text if that matches no name', () => {
  const cases: [string, string[] | null][] = [
    ['', null],
    [' , ', null],
    ['main', ['main.run']],
    ['^M', ['Main.stop']],
    ['MAIN', ['main.run', 'Main.stop']],
    ['run$,stop$', ['main.run', 'Main.stop']],
    ['x(', ['x(y)']],
    ['nothing', []],
    ['total', []],
    ['^x\\(y\\)$', ['x(y)']],
  ];
  for (const [text, expected] of cases) check(text, found(text), expected);
});

test('the weight of a match is counted once per stack', () => {
  expect(search(MODEL, 'main,Main')).toMatchObject({ functions: 2, value: 6 });
  expect(search(MODEL, 'stop')).toMatchObject({ functions: 1, value: 4 });
});

test('a comma inside brackets is part of its term', () => {
  check('a{1,2},b', splitTerms('a{1,2},b'), ['a{1,2}', 'b']);
  check('[,],c', splitTerms('[,],c'), ['[,]', 'c']);
  check('a\\,b', splitTerms('a\\,b'), ['a\\,b']);
});
