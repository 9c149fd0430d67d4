// A query: `process_cpu:cpu:nanoseconds:cpu:nanoseconds{service_name="my-app"}`.
//
// Owns: parsing and formatting of the profile type and its matchers.
// Does not own: their meaning, which the server checks.

export type Operator = '=' | '!=' | '=~' | '!~';
export const OPERATORS: readonly Operator[] = ['=', '!=', '=~', '!~'];

export interface Matcher {
  name: string;
  operator: Operator;
  value: string;
}

export interface Query {
  /** Empty if absent. */
  type: string;
  matchers: Matcher[];
}

export const SERVICE_LABEL = 'service_name';

const LABEL_NAME = /^[a-zA-Z_][a-zA-Z0-9_]*/;
const OPERATOR = /^(=~|!~|!=|=)/;

/** Null if the text is malformed. */
export function parseQuery(text: string): Query | null {
  const trimmed = text.trim();
  const brace = trimmed.indexOf('{');
  if (brace < 0) return /[{}"]/.test(trimmed) ? null : { type: trimmed, matchers: [] };
  const matchers = parseSelector(trimmed.slice(brace));
  if (!matchers) return null;
  const type = trimmed.slice(0, brace).trim();
  const named = matchers.findIndex((matcher) => matcher.name === '__name__' && matcher.operator === '=');
  if (type === '' && named >= 0) {
    const [matcher] = matchers.splice(named, 1);
    return { type: matcher!.value, matchers };
  }
  return { type, matchers };
}

/** Parses `{a="b", c=~"d"}`; null if it is malformed. */
function parseSelector(text: string): Matcher[] | null {
  let rest = text.trim();
  if (!rest.startsWith('{') || !rest.endsWith('}')) return null;
  rest = rest.slice(1).trimStart();
  const matchers: Matcher[] = [];
  while (rest !== '}') {
    let name = LABEL_NAME.exec(rest)?.[0];
    if (name) rest = rest.slice(name.length).trimStart();
    else {
      const quoted = readQuoted(rest);
      if (!quoted) return null;
      name = quoted.value;
      rest = quoted.rest.trimStart();
    }
    const operator = OPERATOR.exec(rest)?.[0] as Operator | undefined;
    if (!operator) return null;
    const value = readQuoted(rest.slice(operator.length).trimStart());
    if (!value) return null;
    matchers.push({ name, operator, value: value.value });
    rest = value.rest.trimStart();
    if (rest.startsWith(',')) rest = rest.slice(1).trimStart();
    else if (rest !== '}') return null;
  }
  return matchers;
}

function readQuoted(text: string): { value: string; rest: string } | null {
  const quote = text[0];
  if (quote !== '"' && quote !== "'" && quote !== '`') return null;
  let value = '';
  for (let i = 1; i < text.length; i++) {
    const char = text[i]!;
    if (char === quote) return { value, rest: text.slice(i + 1) };
    if (char === '\\' && quote !== '`') {
      const escaped = text[++i];
      if (escaped === undefined) return null;
      value += escaped === 'n' ? '\n' : escaped === 't' ? '\t' : escaped === 'r' ? '\r' : escaped;
    } else value += char;
  }
  return null;
}

export function formatMatcher(matcher: Matcher): string {
  const plain = LABEL_NAME.exec(matcher.name)?.[0] === matcher.name;
  return `${plain ? matcher.name : quote(matcher.name)}${matcher.operator}${quote(matcher.value)}`;
}

export function formatSelector(matchers: readonly Matcher[]): string {
  return `{${matchers.map(formatMatcher).join(', ')}}`;
}

export function formatQuery(query: Query): string {
  return query.type === '' && query.matchers.length === 0 ? '' : query.type + formatSelector(query.matchers);
}

function quote(text: string): string {
  return `"${text.replace(/[\\"]/g, '\\$&').replace(/\n/g, '\\n')}"`;
}

/** The value of the first `=` matcher on the service, or null. */
export function serviceOf(query: Query): string | null {
  return query.matchers.find((matcher) => matcher.name === SERVICE_LABEL && matcher.operator === '=')?.value ?? null;
}

export function withService(query: Query, service: string): Query {
  const rest = query.matchers.filter((matcher) => matcher.name !== SERVICE_LABEL);
  return { ...query, matchers: [{ name: SERVICE_LABEL, operator: '=', value: service }, ...rest] };
}

/** All matchers but the one that the service picker shows. */
export function filtersOf(query: Query): Matcher[] {
  const service = serviceOf(query);
  let isServiceSkipped = service === null;
  return query.matchers.filter((matcher) => {
    if (isServiceSkipped || matcher.name !== SERVICE_LABEL || matcher.operator !== '=') return true;
    isServiceSkipped = true;
    return false;
  });
}

export function withFilters(query: Query, filters: readonly Matcher[]): Query {
  const service = serviceOf(query);
  const head: Matcher[] = service === null ? [] : [{ name: SERVICE_LABEL, operator: '=', value: service }];
  return { ...query, matchers: [...head, ...filters] };
}
