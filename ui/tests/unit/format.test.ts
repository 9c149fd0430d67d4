import { expect, test } from 'vitest';
import { preferredType, seriesScale, typeLabel } from '../../src/format/profile_type';
import { columnFormat, formatAge, formatPercent, formatValue } from '../../src/format/units';
import { niceTop } from '../../src/timeseries/chart';
import { check } from './check';

test('values have three significant digits and a unit', () => {
  const cases: [number, string, string][] = [
    [0, 'nanoseconds', '0 s'],
    [12, 'nanoseconds', '12 ns'],
    [1500, 'nanoseconds', '1.50 µs'],
    [12_400_000_000, 'nanoseconds', '12.4 s'],
    [90, 'milliseconds', '90.0 ms'],
    [512, 'bytes', '512 B'],
    [1536, 'bytes', '1.50 KiB'],
    [5 * 1024 ** 3, 'bytes', '5.00 GiB'],
    [999, 'count', '999'],
    [36_200, 'objects', '36.2 K'],
    [1_000_000, '', '1.00 M'],
  ];
  for (const [value, unit, expected] of cases) check([value, unit], formatValue(value, unit), expected);
});

test('times from one minute on have two units', () => {
  check('s', formatValue(59.4e9, 'nanoseconds'), '59.4 s');
  check('rounded', formatValue(59.96e9, 'nanoseconds'), '1 m 00 s');
  check('m', formatValue(252_000, 'milliseconds'), '4 m 12 s');
  check('h', formatValue(7500e9, 'nanoseconds'), '2 h 05 m');
  check('d', formatValue(273_600e9, 'nanoseconds'), '3 d 04 h');
  check('many', formatValue(86_400 * 36_500 * 1e9, 'nanoseconds'), '36,500 d 00 h');
  check('less', formatValue(-252e9, 'nanoseconds'), '-4 m 12 s');
});

test('a column has one unit, so its values align on the decimal point', () => {
  const time = columnFormat(31e9, 'nanoseconds');
  expect([31e9, 1_234e6, 3e6, 0].map(time)).toEqual(['31.00 s', '1.23 s', '<0.01 s', '0.00 s']);
  expect(columnFormat(7272e9, 'nanoseconds')(7272e9)).toBe('7,272.00 s');
  const count = columnFormat(900, 'count');
  expect([900, 5].map(count)).toEqual(['900', '5']);
});

test('percentages have two decimals', () => {
  check('part', formatPercent(31.02, 100), '31.02%');
  check('of nothing', formatPercent(1, 0), '0.00%');
});

test('ages have one unit', () => {
  check('s', formatAge(12_000), '12 s');
  check('min', formatAge(300_000), '5 min');
  check('h', formatAge(3 * 3_600_000), '3 h');
  check('d', formatAge(5 * 86_400_000), '5 d');
});

test('profile types have short names', () => {
  const cases: [string, string][] = [
    ['process_cpu:cpu:nanoseconds:cpu:nanoseconds', 'CPU'],
    ['process_cpu:samples:count:cpu:nanoseconds', 'CPU samples'],
    ['memory:alloc_space:bytes:space:bytes', 'memory alloc space'],
    ['goroutine:goroutine:count:goroutine:count', 'goroutine'],
    ['goroutines:goroutine:count:goroutine:count', 'goroutines'],
    ['', 'Profile type'],
  ];
  for (const [id, expected] of cases) check(id, typeLabel(id), expected);
});

test('a page opens with CPU if available', () => {
  check('cpu', preferredType(['memory:alloc_space:bytes::', 'process_cpu:cpu:nanoseconds:cpu:nanoseconds']), 'process_cpu:cpu:nanoseconds:cpu:nanoseconds');
  check('other', preferredType(['memory:alloc_space:bytes::']), 'memory:alloc_space:bytes::');
  check('none', preferredType([]), '');
});

test('CPU over time is in cores, allocations are per second, memory in use is not divided', () => {
  const cpu = seriesScale('process_cpu:cpu:nanoseconds:cpu:nanoseconds');
  check('cpu', [cpu.divideBySeconds, cpu.format(1.25e9), cpu.tick(0.33e9)], [true, '1.25 cores', '0.33']);
  check('alloc', seriesScale('memory:alloc_space:bytes:space:bytes').format(2048), '2.00 KiB/s');
  check('inuse', seriesScale('memory:inuse_space:bytes:space:bytes').divideBySeconds, false);
});

test('the top of an axis is round and holds the highest value', () => {
  for (const value of [0.0003, 0.7, 1, 1.4, 2.2, 99, 12_345]) {
    expect(niceTop(value)).toBeGreaterThanOrEqual(value);
    expect(niceTop(value)).toBeLessThan(value * 2.01);
  }
  for (const value of [0.0085, 0.0011, 0.19, 1]) expect(String(Number((niceTop(value) / 3).toPrecision(6))).length).toBeLessThan(7);
  check('nothing', niceTop(0), 1);
  check('bytes', niceTop(23 * 1024 ** 3, true), 30 * 1024 ** 3);
});
