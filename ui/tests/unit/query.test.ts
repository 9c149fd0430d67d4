import { test } from 'vitest';
import {
  filtersOf, formatQuery, parseQuery, serviceOf, withFilters, withService, type Matcher, type Query,
} from '../../src/state/query';
import { check } from './check';

const CPU = 'process_cpu:cpu:nanoseconds:cpu:nanoseconds';
const service: Matcher = { name: 'service_name', operator: '=', value: 'my-app' };

test('a query is parsed into type and matchers', () => {
  const cases: [string, Query | null][] = [
    ['', { type: '', matchers: [] }],
    [CPU, { type: CPU, matchers: [] }],
    [`${CPU}{}`, { type: CPU, matchers: [] }],
    [`${CPU}{service_name="my-app"}`, { type: CPU, matchers: [service] }],
    [`{__name__="${CPU}", service_name="my-app"}`, { type: CPU, matchers: [service] }],
    [
      'm:a:b::{service_name="my-app" , pod=~"api-.*",}',
      { type: 'm:a:b::', matchers: [service, { name: 'pod', operator: '=~', value: 'api-.*' }] },
    ],
    ['m{"a.b"!="c"}', { type: 'm', matchers: [{ name: 'a.b', operator: '!=', value: 'c' }] }],
    ['m{a!~"b\\"c\\\\d"}', { type: 'm', matchers: [{ name: 'a', operator: '!~', value: 'b"c\\d' }] }],
    ['m{a="}"}', { type: 'm', matchers: [{ name: 'a', operator: '=', value: '}' }] }],
    ['m{a}', null],
    ['m{a=b}', null],
    ['m{a="b"', null],
    ['m{a="b" c="d"}', null],
    ['m}', null],
  ];
  for (const [text, expected] of cases) check(text, parseQuery(text), expected);
});

test('a formatted query is parsed to the same query', () => {
  const queries: Query[] = [
    { type: CPU, matchers: [] },
    { type: CPU, matchers: [service, { name: 'a.b', operator: '!~', value: 'x"y\\z\nw' }] },
  ];
  for (const query of queries) check(query, parseQuery(formatQuery(query)), query);
  check('none', formatQuery({ type: '', matchers: [] }), '');
});

test('one equality matcher is the service, all others are filters', () => {
  const pod: Matcher = { name: 'pod', operator: '=~', value: 'a' };
  const query: Query = { type: CPU, matchers: [pod, service] };
  check(query, serviceOf(query), 'my-app');
  check(query, filtersOf(query), [pod]);
  check(query, withService(query, 'other').matchers, [{ ...service, value: 'other' }, pod]);
  check(query, withFilters(query, []).matchers, [service]);
  const expression: Query = { type: CPU, matchers: [{ name: 'service_name', operator: '=~', value: 'a|b' }] };
  check(expression, serviceOf(expression), null);
  check(expression, filtersOf(expression), expression.matchers);
});
