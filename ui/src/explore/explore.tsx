// The Explore page: one question, its time series, its flame graph and its functions.
//
// Owns: which questions are asked for a state, how a wish of a part changes the state.
// Does not own: the state itself (the address), the parts' insides.
import { useCallback, useEffect, useId, useMemo, useRef, useState } from 'react';
import { askFlameGraph, askSeries, askServices, askStats } from '../api/questions';
import type { Reply } from '../api/client';
import { useAnswer } from '../api/use_answer';
import { filterStacks, findFocus, focusKey, FOLDED_NAME, nameOf, ROOT, search as searchModel, sumFunctions } from '../flamegraph';
import { parseType, preferredType, typeLabel } from '../format/profile_type';
import { formatCount, formatValue } from '../format/units';
import { useInterval, useKeys, useMedia } from '../parts/hooks';
import { filtersOf, formatQuery, serviceOf, withFilters, withService } from '../state/query';
import { parseSpan, resolveRange, seriesStep } from '../state/time';
import { MAX_NODES_MOST } from '../state/url';
import { useUrlState } from '../state/use_url_state';
import { toggleTheme } from '../theme';
import { Failed, FirstRun, NoRange, NothingHere, Waiting } from './empty';
import { ExplainPanel } from './explain_panel';
import { FlameHost, type FlameHandle } from './flame_host';
import { FunctionTable } from './function_table';
import { GraphTools } from './graph_tools';
import { SeriesPanel } from './series_panel';
import { Shortcuts } from './shortcuts';
import { Shortfall, worst } from './shortfall';
import { StatusLine } from './status_line';
import { TopBar } from './top_bar';
import style from './explore.module.css';

/** Columns of the time series at most. */
const SERIES_POINTS = 240;
/** How often a page without any data looks for the first profile. */
const FIRST_RUN_MILLISECONDS = 5000;
/** What the server names its own profiles. */
const OWN_SERVICE = 'pyrograph';
/** Of a page that opens without a question; one of those that the menu offers. */
const FIRST_REFRESH = '10s';
/** A server whose data is no older opens with the shorter range. */
const NEW_MILLISECONDS = 15 * 60_000;
const NEW_FROM = 'now-15m';
const NOTE_MILLISECONDS = 2500;
const REFINE_FACTOR = 4;
/** Narrower pages show the table or the graph, not both. */
const NARROW = '(max-width: 899px)';

const isRangeAsked = (): boolean => new URLSearchParams(location.search).has('from');

export function Explore() {
  const [state, change] = useUrlState();
  const [tick, setTick] = useState(0);
  const [help, setHelp] = useState(false);
  const [note, setNote] = useState('');
  const isNarrow = useMedia(NARROW);
  const view = isNarrow && state.view === 'both' ? 'graph' : state.view;
  const searchField = useRef<HTMLInputElement>(null);
  const flame = useRef<FlameHandle>(null);
  const { query } = state;
  const service = serviceOf(query);

  const range = useMemo(() => resolveRange(state.from, state.until, Date.now()), [state.from, state.until, tick]);
  const follow = useCallback(() => setTick((last) => last + 1), []);

  const when = range ? `${range.from} ${range.until}` : null;
  const asked = query.type !== '' && when !== null ? `${formatQuery(query)} ${when}` : null;
  const services = useAnswer(when && `services ${when}`, (signal) => askServices(range!, signal));
  const graphKey = asked && `flame ${asked} ${state.maxNodes}`;
  // Explaining takes the server more, so only an open panel wants it.
  const isExplained = state.explain === 'shown';
  const tellsEnough = ({ explained }: Reply<unknown>): boolean => !isExplained || explained !== undefined;
  const graph = useAnswer(graphKey, (signal) => askFlameGraph(query, range!, state.maxNodes, isExplained, signal), tellsEnough);
  // A new question would put an end to a slow one.
  useInterval(follow, state.refresh === '' || graph.loading ? null : parseSpan(state.refresh));
  const step = range ? seriesStep(range, SERIES_POINTS) : 15;
  const seriesKey = asked && state.series === 'shown' ? `series ${asked} ${step} ${state.by}` : null;
  const series = useAnswer(seriesKey, (signal) => askSeries(query, range!, step, state.by, isExplained, signal), tellsEnough);
  const servicesHere = services.value?.body ?? null;
  const isEmpty = graph.value !== null && !graph.error && graph.key === graphKey && graph.value.body.total[ROOT] === 0;
  const hasNoService = servicesHere?.size === 0;
  // Only a page with nothing to draw needs to know where the data is.
  const stats = useAnswer(when && (isEmpty || hasNoService) ? `stats ${when}` : null, askStats);
  const statsKnown = stats.value !== null || stats.error !== null;
  /** Also of a fixed range, where something may be readable that was not. */
  const refresh = (): void => {
    follow();
    for (const answer of [services, graph, series, stats]) answer.again();
  };

  const hasNothing = stats.value?.dataIngested === false && hasNoService;
  useInterval(follow, hasNothing ? FIRST_RUN_MILLISECONDS : null);
  // Of a stale answer nobody knows what came since.
  const isFirstRun = hasNothing && services.value?.report.stale === null;

  // A page without a question opens with what somebody sends, or with the server's own CPU, and follows it:
  // the first seconds of a new server are little, and would drown in an hour.
  const asksNothing = query.type === '' && servicesHere !== null && servicesHere.size > 0;
  const age = useAnswer(asksNothing ? 'age of the data' : null, askStats);
  useEffect(() => {
    if (!asksNothing || (age.value === null && age.error === null)) return;
    const names = [...servicesHere.keys()];
    const first = service ?? names.find((name) => name !== OWN_SERVICE) ?? names[0]!;
    const type = preferredType(servicesHere.get(first) ?? []);
    if (type === '') return;
    const isNew = age.value?.oldest != null && Date.now() - age.value.oldest < NEW_MILLISECONDS;
    const from = isNew && !isRangeAsked() ? NEW_FROM : state.from;
    change({ query: { ...withService(query, first), type }, from, refresh: state.refresh || FIRST_REFRESH }, 'replace');
  }, [asksNothing, age.value, age.error, servicesHere, query, service, state.from, state.refresh, change]);

  useEffect(() => {
    document.title = service === null ? 'Pyrograph' : `${service} · ${typeLabel(query.type)} · Pyrograph`;
  }, [service, query.type]);

  const whole = graph.value?.body ?? null;
  const searched = useMemo(() => (whole ? searchModel(whole, state.search) : null), [whole, state.search]);
  const isFiltered = state.searchMode === 'filter' && searched !== null;
  const model = useMemo(() => (whole && isFiltered ? filterStacks(whole, searched!.marked) : whole), [whole, isFiltered, searched]);
  const sums = useMemo(() => (model ? sumFunctions(model) : null), [model]);
  const focused = useMemo(() => (model ? Math.max(ROOT, findFocus(model, state.focus)) : ROOT), [model, state.focus]);
  const unit = parseType(query.type).sampleUnit;

  const say = useCallback((text: string) => setNote(text), []);
  useEffect(() => {
    if (note === '') return;
    const timer = setTimeout(() => setNote(''), NOTE_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [note]);

  const focusBar = (bar: number): void => change({ focus: model ? focusKey(model, bar) : '' });
  const focusName = (name: string): void => {
    if (model && findFocus(model, name) >= 0) change({ focus: name, select: name });
  };
  const select = (name: string): void => change({ select: name }, 'replace');
  const copy = (text: string, what: string): void => {
    if (text === '') return;
    void navigator.clipboard?.writeText(text).then(
      () => say(`copied ${what}`),
      () => say('the browser refused to copy'),
    );
  };

  const panel = useId();
  const explain = (explain: 'shown' | 'hidden'): void => {
    change({ explain }, 'replace');
  };
  const toggleExplain = (): void => explain(isExplained ? 'hidden' : 'shown');

  /** Undoes the latest of panel, search, zoom and selection. */
  const stepBack = (): void => {
    if (isExplained) explain('hidden');
    else if (state.search !== '') change({ search: '' });
    else if (focused !== ROOT || state.focus !== '') change({ focus: '' });
    else {
      flame.current?.home();
      select('');
    }
  };
  useKeys((key) => {
    const bar = flame.current?.current() ?? ROOT;
    switch (key) {
      case '/':
        searchField.current?.focus();
        searchField.current?.select();
        return true;
      case 'f':
        if (bar !== ROOT) focusBar(bar);
        else focusName(state.select);
        return true;
      case 'c':
        copy(model && bar !== ROOT ? nameOf(model, bar) : state.select, 'the name');
        return true;
      case 'r':
        refresh();
        return true;
      case 'e':
        toggleExplain();
        return true;
      case 't':
        toggleTheme();
        return true;
      case '?':
        setHelp(true);
        return true;
      case 'Escape':
        stepBack();
        return true;
      case 'Enter':
        if (bar === focused) return false;
        focusBar(bar);
        return true;
      case 'ArrowUp':
      case 'ArrowDown':
      case 'ArrowLeft':
      case 'ArrowRight':
        flame.current?.step(key.slice(5).toLowerCase() as 'up' | 'down' | 'left' | 'right');
        return true;
      default:
        return false;
    }
  });

  const loading = graph.loading || services.loading;
  const filters = filtersOf(query);
  const error = graph.error ?? services.error;
  // A refresh that fails leaves what it would have replaced; a new question that fails does not.
  const question = `${formatQuery(query)} ${state.from} ${state.until}`;
  const answered = useRef('');
  if (graph.value && graph.key === graphKey) answered.current = question;
  const keepsOld = model !== null && (graph.error === null || answered.current === question);
  // An answer to an earlier question says nothing of one that failed.
  const shownAnswer = isFirstRun || !keepsOld ? null : graph.value;
  const refine = state.maxNodes < MAX_NODES_MOST ? () => change({ maxNodes: Math.min(MAX_NODES_MOST, state.maxNodes * REFINE_FACTOR) }, 'replace') : null;

  const jump = (): void => {
    const newest = stats.value?.newest;
    if (!newest) return;
    const span = range ? range.until - range.from : 3_600_000;
    if (Date.now() - newest < 3_600_000) change({ from: 'now-1h', until: 'now' });
    else change({ from: String(newest + 1000 - span), until: String(newest + 1000) });
  };

  const shown = isFirstRun ? [] : [graph.value ?? services.value, state.series === 'shown' ? series.value : null];
  const reports = shown.flatMap((answer) => (answer ? [answer.report] : []));

  return (
    <div className={style['page']}>
      <TopBar
        state={state}
        range={range}
        services={services}
        loading={loading}
        onChange={change}
        onRefresh={refresh}
        onCopyLink={(link) => copy(link, 'a link with fixed times')}
        onHelp={() => setHelp(true)}
      />

      {isFirstRun ? (
        <main className={style['single']}>
          <FirstRun onCopied={(what) => say(`copied the ${what}`)} />
        </main>
      ) : (
        <main className={style['main']}>
          <SeriesPanel
            answer={series}
            by={state.by}
            query={query}
            range={range}
            isHidden={state.series === 'hidden'}
            notice={<Shortfall reports={reports} onCopy={(text) => copy(text, 'what is missing')} onExplain={() => explain('shown')} />}
            onHide={(isHidden) => change({ series: isHidden ? 'hidden' : 'shown' }, 'replace')}
            onBy={(by) => change({ by })}
            onBrush={(from, until) => change({ from: String(from), until: String(until) })}
            onReset={() => change({ from: 'now-1h', until: 'now' })}
          />
          <GraphTools
            ref={searchField}
            state={state}
            view={view}
            isNarrow={isNarrow}
            whole={whole}
            model={model}
            focused={focused}
            searched={searched}
            fileName={service ?? 'profile'}
            image={() => flame.current?.image() ?? Promise.resolve(null)}
            onChange={change}
            onReset={() => {
              flame.current?.home();
              change({ focus: '', search: '', select: '' });
            }}
          />
          {range === null ? (
            <NoRange from={state.from} until={state.until} onLastHour={() => change({ from: 'now-1h', until: 'now' })} />
          ) : error && !keepsOld ? (
            <Failed
              error={error}
              onCopy={(text) => copy(text, 'what failed')}
              onRetry={refresh}
            />
          ) : statsKnown && (isEmpty || (hasNoService && query.type === '')) ? (
            <NothingHere
              range={range}
              stats={stats.value}
              hasFilters={filters.length > 0}
              service={service ?? ''}
              othersHere={!hasNoService}
              onJump={jump}
              onDropFilters={() => change({ query: withFilters(query, []) })}
              onWiden={() => change({ from: 'now-24h', until: 'now' })}
            />
          ) : model === null ? (
            <Waiting what={query.type === '' ? 'Looking for services…' : 'Waiting for the flame graph…'} />
          ) : (
            <div className={`${style['panels']} ${view === 'both' ? style['both'] : ''} ${graph.loading ? style['stale'] : ''}`} aria-busy={graph.loading}>
              {sums && (
                <>
                  {view !== 'graph' && (
                    <div className={style['tablePane']}>
                      <FunctionTable
                        model={model}
                        sums={sums}
                        unit={unit}
                        search={searched}
                        sort={state.sort}
                        descending={state.descending}
                        selected={state.select}
                        onSort={(sort, descending) => change({ sort, descending }, 'replace')}
                        onSelect={(name) => {
                          flame.current?.dropCursor();
                          select(name);
                        }}
                        onFocus={focusName}
                      />
                    </div>
                  )}
                  {view !== 'table' && (
                    <div className={style['graphPane']}>
                      <FlameHost
                        ref={flame}
                        model={model}
                        unit={unit}
                        focused={focused}
                        colouring={state.colour}
                        search={isFiltered ? null : searched}
                        selected={state.select}
                        onFocus={focusBar}
                        onSelect={(bar) => select(bar === ROOT ? '' : nameOf(model, bar))}
                        onCopy={(bar) => copy(nameOf(model, bar), 'the name')}
                        onRefine={refine}
                      />
                    </div>
                  )}
                </>
              )}
            </div>
          )}
        </main>
      )}
      <StatusLine
        note={note}
        facts={
          model && sums && shownAnswer && !isEmpty
            ? [
                `${formatValue(whole!.total[ROOT]!, unit)} of ${typeLabel(query.type)}${service === null ? '' : ` in ${service}`}`,
                `${formatCount(sums.present.length)} functions in ${formatCount(model.count - 1)} bars`,
                ...(whole!.names.includes(FOLDED_NAME) ? ['small ones folded into “other”'] : []),
              ]
            : []
        }
        // What it took when nothing of it was in memory, however often it was asked for since.
        cost={shownAnswer && (graph.first ?? shownAnswer)}
        missing={worst(reports).missing}
        step={series.value && state.series === 'shown' ? series.value.body.step : null}
        loading={loading}
        error={error !== null && model !== null ? error.message : ''}
        panel={panel}
        isExplained={isExplained}
        onExplain={toggleExplain}
      />
      {isExplained && range && query.type !== '' && !isFirstRun && (
        <ExplainPanel
          id={panel}
          flameGraph={graph.key === graphKey || graph.loading ? graph : { ...graph, value: null }}
          series={state.series === 'hidden' ? null : series.key === seriesKey || series.loading ? series : { ...series, value: null }}
          onAgain={refresh}
          onCopy={(text) => copy(text, 'the explanation')}
          onClose={() => explain('hidden')}
        />
      )}
      {help && <Shortcuts onClose={() => setHelp(false)} />}
    </div>
  );
}
