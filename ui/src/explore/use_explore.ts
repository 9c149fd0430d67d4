// The state of the Explore page and the decisions that follow from it.
//
// Owns: which content the page shows, and how each action changes the state.
// Does not own: the state itself (the address), the queries (`use_queries`), how a part looks.
import { useEffect, useRef, useState } from 'react';
import { findFocus, focusKey, FOLDED_NAME, ROOT, type FlameModel, type FunctionSums } from '../flamegraph';
import { typeLabel } from '../format/profile_type';
import { formatCount, formatValue } from '../format/units';
import { useMedia } from '../parts/hooks';
import { filtersOf, serviceOf, withFilters } from '../state/query';
import type { Range } from '../state/time';
import { MAX_NODES_LIMIT, type ExploreState } from '../state/url';
import { useUrlState, type Change } from '../state/use_url_state';
import type { FlameHandle } from './flame_host';
import { useFirstQuery } from './use_first_query';
import { useProfile, type Profile } from './use_profile';
import { useQueries, type Queries } from './use_queries';

const NOTE_MILLISECONDS = 2500;
const REFINE_FACTOR = 4;
const HOUR_MILLISECONDS = 3_600_000;
/** Narrower pages show the table or the graph, not both. */
const NARROW = '(max-width: 899px)';

/** The part of the page below the search. */
export type Content =
  | { kind: 'no range' | 'waiting' }
  | { kind: 'failed'; error: Error }
  | { kind: 'no data'; range: Range }
  | { kind: 'graph'; model: FlameModel; sums: FunctionSums };

export type Explore = ReturnType<typeof useExplore>;

export function useExplore() {
  const [state, change] = useUrlState();
  const [isHelpShown, showHelp] = useState(false);
  const [note, say] = useNote();
  const isNarrow = useMedia(NARROW);
  const searchField = useRef<HTMLInputElement>(null);
  const flame = useRef<FlameHandle>(null);
  const queries = useQueries(state);
  useFirstQuery(state, queries.servicesInRange, change);
  const service = serviceOf(state.query);
  useEffect(() => {
    document.title = service === null ? 'Pyrograph' : `${service} · ${typeLabel(state.query.type)} · Pyrograph`;
  }, [service, state.query.type]);
  const profile = useProfile(queries.graph.value?.body ?? null, state);

  const { graph, services, series, isFirstRun } = queries;
  const answers = isFirstRun ? [] : [graph.value ?? services.value, state.series === 'shown' ? series.value : null];
  // The previous answer says nothing about a new query that failed.
  const answer = isFirstRun || !queries.isGraphKept ? null : graph.value;
  return {
    state,
    change,
    service,
    hasFilters: filtersOf(state.query).length > 0,
    isNarrow,
    view: isNarrow && state.view === 'both' ? ('graph' as const) : state.view,
    searchField,
    flame,
    queries,
    profile,
    content: contentOf(state, queries, profile),
    reports: answers.flatMap((shown) => (shown ? [shown.report] : [])),
    // A repeated query reports the cost of its first answer, which found nothing in memory.
    cost: answer && (graph.first ?? answer),
    facts: answer && !queries.isGraphEmpty ? factsOf(state, profile) : [],
    note,
    say,
    isHelpShown,
    showHelp,
    ...actionsOf(state, change, queries, profile, flame, say),
  };
}

/** A short message that disappears by itself. */
function useNote(): [string, (text: string) => void] {
  const [note, setNote] = useState('');
  useEffect(() => {
    if (note === '') return;
    const timer = setTimeout(() => setNote(''), NOTE_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [note]);
  return [note, setNote];
}

function contentOf({ query }: ExploreState, { range, error, stats, isGraphKept, isGraphEmpty, hasNoService }: Queries, { model, sums }: Profile): Content {
  if (range === null) return { kind: 'no range' };
  if (error && !isGraphKept) return { kind: 'failed', error };
  const areStatsKnown = stats.value !== null || stats.error !== null;
  if (areStatsKnown && (isGraphEmpty || (hasNoService && query.type === ''))) return { kind: 'no data', range };
  return model && sums ? { kind: 'graph', model, sums } : { kind: 'waiting' };
}

function factsOf({ query }: ExploreState, { whole, model, sums, unit }: Profile): string[] {
  if (!whole || !model || !sums) return [];
  const service = serviceOf(query);
  return [
    `${formatValue(whole.total[ROOT]!, unit)} of ${typeLabel(query.type)}${service === null ? '' : ` in ${service}`}`,
    `${formatCount(sums.present.length)} functions in ${formatCount(model.count - 1)} bars`,
    ...(whole.names.includes(FOLDED_NAME) ? ['small ones folded into “other”'] : []),
  ];
}

function actionsOf(
  state: ExploreState,
  change: Change,
  { range, stats }: Queries,
  { model }: Profile,
  flame: React.RefObject<FlameHandle | null>,
  say: (text: string) => void,
) {
  const explain = (isShown: boolean): void => change({ explain: isShown ? 'shown' : 'hidden' }, 'replace');
  const showLastHour = (): void => change({ from: 'now-1h', until: 'now' });
  return {
    explain,
    toggleExplain: () => explain(state.explain !== 'shown'),
    showLastHour,
    showNewest: () => {
      const newest = stats.value?.newest;
      if (!newest) return;
      const span = range ? range.until - range.from : HOUR_MILLISECONDS;
      if (Date.now() - newest < HOUR_MILLISECONDS) showLastHour();
      else change({ from: String(newest + 1000 - span), until: String(newest + 1000) });
    },
    removeFilters: () => change({ query: withFilters(state.query, []) }),
    focusBar: (bar: number) => change({ focus: model ? focusKey(model, bar) : '' }),
    focusName: (name: string) => {
      if (model && findFocus(model, name) >= 0) change({ focus: name, select: name });
    },
    select: (name: string) => change({ select: name }, 'replace'),
    reset: () => {
      flame.current?.home();
      change({ focus: '', search: '', select: '' });
    },
    /** Asks for more bars; null at the maximum of the server. */
    refine: state.maxNodes < MAX_NODES_LIMIT ? () => change({ maxNodes: Math.min(MAX_NODES_LIMIT, state.maxNodes * REFINE_FACTOR) }, 'replace') : null,
    /** `subject` names the copied text in the note. */
    copy: (text: string, subject: string) => {
      if (text === '') return;
      void navigator.clipboard?.writeText(text).then(
        () => say(`copied ${subject}`),
        () => say('the browser refused to copy'),
      );
    },
  };
}
