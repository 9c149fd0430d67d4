import { expect, test } from 'vitest';
import { contrast, murmur3, packagePalette, packageOf, parseColour, valuePalette } from '../../src/flamegraph/colours';
import { check } from './check';

test('the hash is MurmurHash3 with seed 0', () => {
  const cases: [string, number][] = [
    ['', 0],
    ['a', 0x3c2569b2],
    ['hello', 0x248bfa47],
    ['hello, world', 0x149bbb7f],
    ['The quick brown fox jumps over the lazy dog', 0x2e4ff723],
  ];
  for (const [text, expected] of cases) check(text, murmur3(text), expected);
});

test('the package of a function follows the rule of Grafana', () => {
  const cases: [string, string][] = [
    ['', ''],
    ['total', 'total'],
    ['runtime.mallocgc', 'runtime.'],
    ['net/http.(*conn).serve', 'net/http.'],
    ['github.com/acme/shop/cart.(*Cart).Total', 'github.com/acme/shop/cart.'],
    ['app/views.py:10 - render', 'app/'],
    ['views.py render', ''],
    ['lib/a.rb:3', 'lib/'],
    ['web/index.php', 'web/'],
    ['alloc::vec::push', 'alloc::vec'],
    ['std::main', 'std'],
    ['./node_modules/express/lib/router.js:handle:12', 'express'],
    ['java/lang/Thread.run', 'java/lang/Thread.'],
    ['no separators here', 'no separators here'],
  ];
  for (const [name, expected] of cases) check(name, packageOf(name), expected);
});

test('text on every bar has a contrast of at least 4.5 in both themes', () => {
  for (const palette of [packagePalette(true), packagePalette(false), valuePalette()]) {
    for (const { fill, text } of palette) expect(contrast(parseColour(fill), parseColour(text)), fill).toBeGreaterThanOrEqual(4.5);
  }
});

test('colours are parsed in the notations of browsers', () => {
  check('#ff7a1a', parseColour('#ff7a1a'), [255, 122, 26]);
  check('rgb(1, 2, 3)', parseColour('rgb(1, 2, 3)'), [1, 2, 3]);
  check('rgb(1 2 3)', parseColour('rgb(1 2 3)'), [1, 2, 3]);
});
