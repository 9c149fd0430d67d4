import { expect, test } from 'vitest';
import { readReport } from '../../src/api/report';
import { missingText, staleText, worst } from '../../src/explore/shortfall';
import { costParts } from '../../src/explore/status_line';

test('the amount of data read is in the headers', () => {
  const stats = '{"profiles":3,"samples":40,"bytes":2048,"blocks":5,"millis":1.5}';
  expect(readReport(new Headers({ 'X-Pyrograph-Query-Stats': stats, 'X-Pyrograph-Partial': '2' }))).toEqual({
    read: { profiles: 3, samples: 40, bytes: 2048, objects: 5, milliseconds: 1.5 },
    missing: 2,
    missingObjects: [],
    stale: null,
  });
});

test('missing objects with reasons and the age of the catalog are in the headers', () => {
  const missingObjects = [{ object: 'blocks/a', why: 'checksum differs' }];
  const headers = { 'x-pyrograph-partial': '1', 'x-pyrograph-partial-why': JSON.stringify(missingObjects), 'x-pyrograph-stale': '42' };
  expect(readReport(new Headers(headers))).toEqual({ read: null, missing: 1, missingObjects, stale: 42 });
  for (const broken of ['', '7', 'null', '[{', '[null, 1, {"object":"a"}]']) expect(readReport(new Headers({ 'x-pyrograph-partial-why': broken })).missingObjects).toEqual([]);
  for (const stale of ['', 'yes', '-1']) expect(readReport(new Headers({ 'x-pyrograph-stale': stale })).stale).toBe(0);
});

test('the worst of several answers is reported', () => {
  const whole = { read: null, missing: 0, missingObjects: [], stale: null };
  const missingObjects = [{ object: 'blocks/a', why: 'gone' }];
  expect(worst([])).toEqual({ missing: 0, missingObjects: [], stale: null });
  expect(worst([whole, { ...whole, missing: 2, missingObjects }, { ...whole, missing: 1, stale: 5 }])).toEqual({ missing: 2, missingObjects, stale: 5 });
  expect(worst([{ ...whole, stale: 0 }, whole]).stale).toBe(0);
});

test('a stale answer states its age and the consequence', () => {
  expect(staleText(null)).toBe('');
  expect(staleText(42)).toBe('stale: the catalog is 42 s behind; profiles stored since may be missing until it catches up');
});

test('an absent or malformed report loses no answer, and a malformed warning is still a warning', () => {
  expect(readReport(new Headers())).toEqual({ read: null, missing: 0, missingObjects: [], stale: null });
  for (const stats of ['', 'null', '7', '{"profiles":']) expect(readReport(new Headers({ 'x-pyrograph-query-stats': stats })).read).toBeNull();
  expect(readReport(new Headers({ 'x-pyrograph-query-stats': '{"bytes":"9"}' })).read?.bytes).toBe(0);
  for (const partial of ['', 'yes', '0', '-1']) expect(readReport(new Headers({ 'x-pyrograph-partial': partial })).missing).toBe(1);
});

test('the cost states time, bytes and objects', () => {
  const read = { profiles: 1204, samples: 36_200, bytes: 2_150_000, objects: 1, milliseconds: 12.4 };
  expect(costParts({ milliseconds: 38, bytes: 900, report: { read, missing: 0, missingObjects: [], stale: null } }).join(' · ')).toBe(
    '1,204 profiles, 36,200 samples · 38 ms, 2.05 MiB read from 1 object',
  );
  expect(costParts({ milliseconds: 38, bytes: 2048, report: { read: null, missing: 0, missingObjects: [], stale: null } })).toEqual(['38 ms, 2.00 KiB answer']);
});

test('an answer that read no sample mentions no samples', () => {
  const read = { profiles: 1, samples: 0, bytes: 12, objects: 1, milliseconds: 1 };
  expect(costParts({ milliseconds: 2, bytes: 2048, report: { read, missing: 0, missingObjects: [], stale: null } })[0]).toBe('1 profile');
});

test('a partial answer states the number of missing objects', () => {
  expect(missingText(0)).toBe('');
  expect(missingText(1)).toBe('partial: 1 object of this range cannot be read, its profiles are missing');
  expect(missingText(3)).toBe('partial: 3 objects of this range cannot be read, their profiles are missing');
});
