import { afterEach, expect, test, vi } from 'vitest';
import { call, json } from '../../src/api/client';

const labelNames = { method: 'LabelNames', request: {} };
const names = json(({ names = [] }: { names?: string[] }) => names);

/** Stubs a server that answers `body`; returns a function that reads the request headers. */
function answering(body: object, headers: Record<string, string> = {}) {
  const fetched = vi.fn<typeof fetch>(() => Promise.resolve(new Response(JSON.stringify(body), { headers })));
  vi.stubGlobal('fetch', fetched);
  return () => new Headers(fetched.mock.calls[0]![1]!.headers);
}

afterEach(() => void vi.unstubAllGlobals());

test('an answer holds the body and the explanation', async () => {
  const sent = answering({ names: ['pod'], explained: { questions: [{ found: { objects: 3 } }] } });
  const { body, explained } = await call({ ...labelNames, explain: true }, new AbortController().signal, names);
  expect(sent().get('x-pyrograph-explain')).toBe('true');
  expect([body, explained?.explanation.found.objects]).toEqual([['pod'], 3]);
});

test('an answer reports missing objects and staleness', async () => {
  answering({ names: [] }, { 'x-pyrograph-partial': '2', 'x-pyrograph-stale': '42' });
  expect((await call(labelNames, new AbortController().signal, names)).report).toMatchObject({ missing: 2, stale: 42 });
});

test('an explanation that was not requested differs from one that the server does not support', async () => {
  const sent = answering({});
  expect((await call(labelNames, new AbortController().signal, names)).explained).toBeUndefined();
  expect(sent().get('x-pyrograph-explain')).toBeNull();
  expect((await call({ ...labelNames, explain: true }, new AbortController().signal, names)).explained).toBeNull();
});
