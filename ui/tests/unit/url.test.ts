import { expect, test } from 'vitest';
import { DEFAULT_STATE, MAX_NODES_LIMIT, readState, writeState, type ExploreState } from '../../src/state/url';

test('an empty address is the default page', () => {
  expect(readState('')).toEqual(DEFAULT_STATE);
});

test('every state survives writing and reading the address', () => {
  const state: ExploreState = {
    query: {
      type: 'process_cpu:cpu:nanoseconds:cpu:nanoseconds',
      matchers: [
        { name: 'service_name', operator: '=', value: 'my app & co' },
        { name: 'pod', operator: '=~', value: 'api-[0-9]+#%' },
      ],
    },
    from: '1750000000000',
    until: 'now-5m',
    view: 'graph',
    focus: 'main.main;net/http.(*conn).serve',
    search: '^runtime\\.,gc',
    searchMode: 'filter',
    select: 'a;b+c',
    splitBy: 'pod',
    series: 'hidden',
    explain: 'shown',
    sort: 'name',
    descending: false,
    colour: 'value',
    refresh: '10s',
    maxNodes: 65_536,
  };
  expect(readState(writeState(state))).toEqual(state);
});

test('an address is readable and holds only values that differ from the default', () => {
  const query = { type: 'm:a:b:c:d', matchers: [{ name: 'service_name', operator: '=' as const, value: 'my-app' }] };
  expect(writeState({ ...DEFAULT_STATE, query })).toBe('?query=m:a:b:c:d{service_name=%22my-app%22}&from=now-1h&until=now&view=both');
});

test('malformed parameters count as absent', () => {
  const state = readState('?query=m{a&view=sideways&sort=luck-up&refresh=soon&maxNodes=-3&colour=ultraviolet');
  expect(state).toEqual(DEFAULT_STATE);
  expect(readState('?maxNodes=99999999999').maxNodes).toBe(MAX_NODES_LIMIT);
});
