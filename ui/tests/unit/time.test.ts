import { expect, test } from 'vitest';
import { describeRange, parseSpan, parseTime, resolveRange, seriesStep, timeTicks } from '../../src/state/time';
import { check } from './check';

const NOW = 1_750_000_000_000;

test('times are parsed in all notations', () => {
  const cases: [string, number | null][] = [
    ['now', NOW],
    [' now-1h ', NOW - 3_600_000],
    ['now-15m', NOW - 900_000],
    ['now-5min', NOW - 300_000],
    ['now-7d', NOW - 7 * 86_400_000],
    ['now+10s', NOW + 10_000],
    ['1749999999999', 1_749_999_999_999],
    ['1749999999', 1_749_999_999_000],
    ['1749999999999000', 1_749_999_999_999],
    ['1749999999999000000', 1_749_999_999_999],
    ['2025-06-15T10:00:00Z', Date.UTC(2025, 5, 15, 10)],
    ['2025-06-15 10:00', new Date(2025, 5, 15, 10).getTime()],
    ['now-', null],
    ['now-1fortnight', null],
    ['yesterday', null],
    ['', null],
  ];
  for (const [text, expected] of cases) check(text, parseTime(text, NOW), expected);
});

test('the start of a range is before its end', () => {
  check('hour', resolveRange('now-1h', 'now', NOW), { from: NOW - 3_600_000, until: NOW });
  check('reversed', resolveRange('now', 'now-1h', NOW), null);
  check('broken', resolveRange('then', 'now', NOW), null);
});

test('a span has a number and a unit', () => {
  check('10s', parseSpan('10s'), 10_000);
  check('1m', parseSpan('1m'), 60_000);
  check('s', parseSpan('s'), null);
});

test('relative ranges are described in words', () => {
  check('now-1h', describeRange('now-1h', 'now'), 'last 1 h');
  check('now-15m', describeRange('now-15m', 'now'), 'last 15 min');
  check('odd', describeRange('now-2h', 'now-1h'), 'now-2h to now-1h');
});

test('steps are round, and their number is limited', () => {
  const hours = (count: number) => ({ from: NOW, until: NOW + count * 3_600_000 });
  check('1 h', seriesStep(hours(1), 240), 15);
  check('24 h', seriesStep(hours(24), 240), 600);
  check('5 min', seriesStep(hours(1 / 12), 240), 10);
  for (const count of [0.1, 1, 6, 24, 24 * 30, 24 * 3000]) {
    expect((count * 3600) / seriesStep(hours(count), 240)).toBeLessThanOrEqual(240);
  }
});

test('ticks are inside the range', () => {
  const range = { from: NOW, until: NOW + 3_600_000 };
  const ticks = timeTicks(range, 8);
  expect(ticks.length).toBeGreaterThan(4);
  for (const tick of ticks) expect(tick >= range.from && tick <= range.until).toBe(true);
});
