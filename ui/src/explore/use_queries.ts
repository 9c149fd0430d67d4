// The queries of the Explore page and their answers.
//
// Owns: which queries a state of the page asks, and when they are asked again.
// Does not own: the state (the address), how an answer is shown.
import { useCallback, useMemo, useRef, useState } from 'react';
import type { Reply } from '../api/client';
import { askFlameGraph, askSeries, askServices, askStats } from '../api/queries';
import { useAnswer, type Answer } from '../api/use_answer';
import { ROOT } from '../flamegraph';
import { useInterval } from '../parts/hooks';
import { formatQuery } from '../state/query';
import { parseSpan, resolveRange, seriesStep } from '../state/time';
import type { ExploreState } from '../state/url';

/** Maximum number of columns in the time series. */
const SERIES_POINTS = 240;
/** Interval at which a page without any data looks for the first profile. */
const FIRST_RUN_MILLISECONDS = 5000;

export type Queries = ReturnType<typeof useQueries>;

export function useQueries(state: ExploreState) {
  const { query } = state;
  const [tick, setTick] = useState(0);
  const range = useMemo(() => resolveRange(state.from, state.until, Date.now()), [state.from, state.until, tick]);
  const follow = useCallback(() => setTick((last) => last + 1), []);

  const when = range ? `${range.from} ${range.until}` : null;
  const asked = query.type !== '' && when !== null ? `${formatQuery(query)} ${when}` : null;
  const services = useAnswer(when && `services ${when}`, (signal) => askServices(range!, signal));
  const graphKey = asked && `flame ${asked} ${state.maxNodes}`;
  // Explaining costs the server more, so answers are explained only while the panel is open.
  const isExplained = state.explain === 'shown';
  const isEnough = ({ explained }: Reply<unknown>): boolean => !isExplained || explained !== undefined;
  const graph = useAnswer(graphKey, (signal) => askFlameGraph(query, range!, state.maxNodes, isExplained, signal), isEnough);
  // Asking again would cancel a slow query.
  useInterval(follow, state.refresh === '' || graph.loading ? null : parseSpan(state.refresh));
  const step = range ? seriesStep(range, SERIES_POINTS) : 15;
  const seriesKey = asked && state.series === 'shown' ? `series ${asked} ${step} ${state.splitBy}` : null;
  const series = useAnswer(seriesKey, (signal) => askSeries(query, range!, step, state.splitBy, isExplained, signal), isEnough);

  const servicesInRange = services.value?.body ?? null;
  const isGraphEmpty = graph.value !== null && !graph.error && graph.key === graphKey && graph.value.body.total[ROOT] === 0;
  const hasNoService = servicesInRange?.size === 0;
  // Only a page without a graph needs the times of the stored data.
  const stats = useAnswer(when && (isGraphEmpty || hasNoService) ? `stats ${when}` : null, askStats);
  const hasNoData = stats.value?.dataIngested === false && hasNoService;
  useInterval(follow, hasNoData ? FIRST_RUN_MILLISECONDS : null);

  // A refresh that fails keeps the previous graph; a new query that fails does not.
  const queryText = `${formatQuery(query)} ${state.from} ${state.until}`;
  const answered = useRef('');
  if (graph.value && graph.key === graphKey) answered.current = queryText;
  const isGraphKept = graph.value !== null && (graph.error === null || answered.current === queryText);

  /** Drops cached answers too: a fixed range may hold objects that were unreadable before. */
  const refresh = (): void => {
    follow();
    for (const answer of [services, graph, series, stats]) answer.repeat();
  };

  return {
    range,
    services,
    servicesInRange,
    graph,
    series,
    stats,
    /** The graph and the time series, without answers to earlier queries. */
    graphToExplain: onlyFor(graphKey, graph),
    seriesToExplain: state.series === 'hidden' ? null : onlyFor(seriesKey, series),
    isExplained,
    isGraphEmpty,
    isGraphKept,
    hasNoService,
    // A stale answer may miss profiles that have arrived since.
    isFirstRun: hasNoData && services.value?.report.stale === null,
    loading: graph.loading || services.loading,
    error: graph.error ?? services.error,
    refresh,
  };
}

function onlyFor<T>(key: string | null, answer: Answer<T>): Answer<T> {
  return answer.key === key || answer.loading ? answer : { ...answer, value: null };
}
