// Conversion between the address of the page and its state.
import { formatQuery, parseQuery, type Query } from './query';
import { parseSpan } from './time';

export type ViewMode = 'both' | 'table' | 'graph';
export type SortColumn = 'name' | 'self' | 'total';

export interface ExploreState {
  query: Query;
  /** As in the address: `now-1h` or Unix milliseconds. */
  from: string;
  until: string;
  view: ViewMode;
  /** Suffix of the path to the focused bar, as folded text; empty for none. */
  focus: string;
  search: string;
  /** Whether other functions are greyed out or removed. */
  searchMode: 'highlight' | 'filter';
  /** Function that is marked in table and graph; empty for none. */
  select: string;
  /** Label that splits the time series; empty for none. */
  splitBy: string;
  series: 'shown' | 'hidden';
  /** The panel that explains the answers. */
  explain: 'shown' | 'hidden';
  sort: SortColumn;
  descending: boolean;
  colour: 'package' | 'value';
  /** `10s`; empty for never. */
  refresh: string;
  /** Maximum number of bars in an answer. */
  maxNodes: number;
}

const MAX_NODES_DEFAULT = 16_384;
/** Maximum that a server accepts for a flame graph. */
export const MAX_NODES_LIMIT = 1_048_576;

export const DEFAULT_STATE: ExploreState = {
  query: { type: '', matchers: [] },
  from: 'now-1h',
  until: 'now',
  view: 'both',
  focus: '',
  search: '',
  searchMode: 'highlight',
  select: '',
  splitBy: '',
  series: 'shown',
  explain: 'hidden',
  sort: 'self',
  descending: true,
  colour: 'package',
  refresh: '',
  maxNodes: MAX_NODES_DEFAULT,
};

/** Never fails: a malformed parameter counts as absent. */
export function readState(search: string): ExploreState {
  const params = new URLSearchParams(search);
  const text = (name: string, fallback: string): string => params.get(name) ?? fallback;
  const oneOf = <T extends string>(name: string, allowed: readonly T[], fallback: T): T =>
    allowed.find((value) => value === params.get(name)) ?? fallback;
  const [sort, direction] = text('sort', '').split('-');
  const sorts = ['name', 'self', 'total'] as const;
  const column = sorts.find((value) => value === sort);
  const refresh = text('refresh', '');
  const maxNodes = Number(params.get('maxNodes') ?? params.get('max-nodes'));
  return {
    query: parseQuery(text('query', '')) ?? DEFAULT_STATE.query,
    from: text('from', DEFAULT_STATE.from),
    until: text('until', DEFAULT_STATE.until),
    view: oneOf('view', ['both', 'table', 'graph'], DEFAULT_STATE.view),
    focus: text('focus', ''),
    search: text('search', ''),
    searchMode: oneOf('searchMode', ['highlight', 'filter'], DEFAULT_STATE.searchMode),
    select: text('select', ''),
    splitBy: text('by', ''),
    series: oneOf('series', ['shown', 'hidden'], DEFAULT_STATE.series),
    explain: oneOf('explain', ['shown', 'hidden'], DEFAULT_STATE.explain),
    sort: column ?? DEFAULT_STATE.sort,
    descending: column ? direction !== 'asc' : DEFAULT_STATE.descending,
    colour: oneOf('colour', ['package', 'value'], DEFAULT_STATE.colour),
    refresh: parseSpan(refresh) === null ? '' : refresh,
    maxNodes:
      Number.isInteger(maxNodes) && maxNodes > 0 ? Math.min(maxNodes, MAX_NODES_LIMIT) : DEFAULT_STATE.maxNodes,
  };
}

/** Writes query, from, until and view always, other parts if they differ from the default; omits empty values. */
export function writeState(state: ExploreState): string {
  const params: [string, string][] = [
    ['query', formatQuery(state.query)],
    ['from', state.from],
    ['until', state.until],
    ['view', state.view],
  ];
  const add = (name: string, value: string, fallback: string): void => {
    if (value !== fallback) params.push([name, value]);
  };
  add('focus', state.focus, '');
  add('search', state.search, '');
  add('searchMode', state.searchMode, DEFAULT_STATE.searchMode);
  add('select', state.select, '');
  add('by', state.splitBy, '');
  add('series', state.series, DEFAULT_STATE.series);
  add('explain', state.explain, DEFAULT_STATE.explain);
  add('sort', `${state.sort}${state.descending ? '' : '-asc'}`, DEFAULT_STATE.sort);
  add('colour', state.colour, DEFAULT_STATE.colour);
  add('refresh', state.refresh, '');
  add('maxNodes', String(state.maxNodes), String(DEFAULT_STATE.maxNodes));
  return `?${params
    .filter(([, value]) => value !== '')
    .map(([name, value]) => `${name}=${readable(value)}`)
    .join('&')}`;
}

/** Escapes only characters that an address cannot hold, so that a query stays readable. */
function readable(text: string): string {
  return encodeURIComponent(text).replace(/%(3A|2C|2F|3D|40|24|28|29|3B|2A|7E|21|7B|7D|3F)/gi, (escape) =>
    decodeURIComponent(escape),
  );
}
