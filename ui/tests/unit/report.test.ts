import { expect, test } from 'vitest';
import { readReport } from '../../src/api/report';
import { lack, staleness, worst } from '../../src/explore/shortfall';
import { costParts } from '../../src/explore/status_line';

test('the report of an answer is in its headers', () => {
  const stats = '{"profiles":3,"samples":40,"bytes":2048,"blocks":5,"millis":1.5}';
  expect(readReport(new Headers({ 'X-Pyrograph-Query-Stats': stats, 'X-Pyrograph-Partial': '2' }))).toEqual({
    read: { profiles: 3, samples: 40, bytes: 2048, objects: 5, milliseconds: 1.5 },
    missing: 2,
    why: [],
    stale: null,
  });
});

test('why objects are missing and how old the answer is are in its headers', () => {
  const why = [{ object: 'blocks/a', why: 'checksum differs' }];
  const headers = { 'x-pyrograph-partial': '1', 'x-pyrograph-partial-why': JSON.stringify(why), 'x-pyrograph-stale': '42' };
  expect(readReport(new Headers(headers))).toEqual({ read: null, missing: 1, why, stale: 42 });
  for (const broken of ['', '7', 'null', '[{', '[null, 1, {"object":"a"}]']) expect(readReport(new Headers({ 'x-pyrograph-partial-why': broken })).why).toEqual([]);
  for (const stale of ['', 'yes', '-1']) expect(readReport(new Headers({ 'x-pyrograph-stale': stale })).stale).toBe(0);
});

test('the page tells the worst of the answers shown', () => {
  const whole = { read: null, missing: 0, why: [], stale: null };
  const why = [{ object: 'blocks/a', why: 'gone' }];
  expect(worst([])).toEqual({ missing: 0, why: [], stale: null });
  expect(worst([whole, { ...whole, missing: 2, why }, { ...whole, missing: 1, stale: 5 }])).toEqual({ missing: 2, why, stale: 5 });
  expect(worst([{ ...whole, stale: 0 }, whole]).stale).toBe(0);
});

test('a stale answer says how old it is and what that means', () => {
  expect(staleness(null)).toBe('');
  expect(staleness(42)).toBe('stale: the answer is of what was known 42 s before it; profiles stored since may be missing, until the catalog can follow again');
});

test('a report that is absent, short or broken hides nothing and breaks nothing', () => {
  expect(readReport(new Headers())).toEqual({ read: null, missing: 0, why: [], stale: null });
  for (const stats of ['', 'null', '7', '{"profiles":']) expect(readReport(new Headers({ 'x-pyrograph-query-stats': stats })).read).toBeNull();
  expect(readReport(new Headers({ 'x-pyrograph-query-stats': '{"bytes":"9"}' })).read?.bytes).toBe(0);
  for (const partial of ['', 'yes', '0', '-1']) expect(readReport(new Headers({ 'x-pyrograph-partial': partial })).missing).toBe(1);
});

test('the cost says time, bytes and objects', () => {
  const read = { profiles: 1204, samples: 36_200, bytes: 2_150_000, objects: 1, milliseconds: 12.4 };
  expect(costParts({ milliseconds: 38, bytes: 900, report: { read, missing: 0, why: [], stale: null } }).join(' · ')).toBe(
    '1,204 profiles, 36,200 samples · 38 ms, 2.05 MiB read from 1 object',
  );
  expect(costParts({ milliseconds: 38, bytes: 2048, report: { read: null, missing: 0, why: [], stale: null } })).toEqual(['38 ms, 2.00 KiB answer']);
});

test('an answer that read no sample does not speak of samples', () => {
  const read = { profiles: 1, samples: 0, bytes: 12, objects: 1, milliseconds: 1 };
  expect(costParts({ milliseconds: 2, bytes: 2048, report: { read, missing: 0, why: [], stale: null } })[0]).toBe('1 profile');
});

test('a partial answer says what it lacks', () => {
  expect(lack(0)).toBe('');
  expect(lack(1)).toBe('partial: 1 object of this range cannot be read, its profiles are missing');
  expect(lack(3)).toBe('partial: 3 objects of this range cannot be read, their profiles are missing');
});
