// The explanation of the answers on the page: times, objects and bytes read, skipped and missing, work per querier.
//
// Owns: the texts.
// Does not own: the request, which is part of the page's queries.
import { useLayoutEffect, useRef, type ReactNode } from 'react';
import type { Reply } from '../api/client';
import type { Explained, Explanation, UnitOfWork } from '../api/explain';
import type { Answer } from '../api/use_answer';
import { counted, formatAge, formatBytes, formatCount, formatElapsed } from '../format/units';
import { Hint, Term } from '../parts/hint';
import { Icon } from '../parts/icon';
import { clock } from '../state/time';
import controls from '../parts/controls.module.css';
import style from './explain_panel.module.css';

interface ExplainPanelProps {
  id: string;
  flameGraph: Answer<Reply<unknown>>;
  /** Null while the time series is hidden. */
  series: Answer<Reply<unknown>> | null;
  onRefresh: () => void;
  onCopy: (text: string) => void;
  onClose: () => void;
}

interface Column {
  title: string;
  explained: Explained;
}

export function ExplainPanel({ id, flameGraph, series, onRefresh, onCopy, onClose }: ExplainPanelProps) {
  const root = useRef<HTMLElement>(null);
  const body = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const opener = document.activeElement as HTMLElement | null;
    const panel = root.current!;
    body.current!.focus({ preventScroll: true });
    return () => {
      if (panel.contains(document.activeElement)) opener?.focus();
    };
  }, []);
  const columns: Column[] = [];
  if (flameGraph.value?.explained) columns.push({ title: 'Flame graph', explained: flameGraph.value.explained });
  if (series?.value?.explained) columns.push({ title: 'Time series', explained: series.value.explained });
  const error = flameGraph.error ?? series?.error;
  const loading = flameGraph.loading || series?.loading;
  const isUnexplained = flameGraph.value?.explained === null;
  const first = flameGraph.first && `; the first run took ${formatElapsed(flameGraph.first.milliseconds)}, this one found data in memory`;
  return (
    <section
      ref={root}
      id={id}
      className={style['root']}
      aria-label="Query details"
      onKeyDown={(event) => {
        if (event.key === 'Escape') onClose();
        // Arrows scroll here; on the rest of the page they move in the graph.
        if (event.key === 'Escape' || event.key.startsWith('Arrow')) event.stopPropagation();
      }}
    >
      <header className={style['head']}>
        <h2>Query details</h2>
        <span className={style['hint']} aria-live="polite">
          {error ? '' : loading ? 'loading…' : isUnexplained ? 'this server does not explain its answers' : columns[0] ? `answered at ${clock(columns[0].explained.answeredAt, true)}${first ?? ''}` : ''}
        </span>
        <button type="button" className={controls['icon']} onClick={onRefresh}>
          <Icon name="refresh" />
          Ask again
        </button>
        <button
          type="button"
          className={controls['icon']}
          disabled={columns.length === 0}
          onClick={() => onCopy(JSON.stringify({ questions: columns.map(({ explained }) => explained.raw) }, null, 2))}
        >
          <Icon name="copy" />
          Copy JSON
        </button>
        <Hint text="Close (Esc)">
          <button type="button" className={controls['icon']} aria-label="Close" onClick={onClose}>
            <Icon name="close" />
          </button>
        </Hint>
      </header>
      <div ref={body} tabIndex={0} role="group" aria-label="Details" className={`${style['body']} ${loading && columns.length > 0 ? style['stale'] : ''}`} aria-busy={loading}>
        {error && (
          <p role="alert" className={style['error']}>
            {error.message}
          </p>
        )}
        {columns.length > 0 && <Details columns={columns} />}
      </div>
    </section>
  );
}

function Details({ columns }: { columns: Column[] }) {
  const all = columns.map(({ explained }) => explained.explanation);
  const units = columns.flatMap(({ title, explained }) => explained.explanation.units.slowest.map((unit) => ({ title, unit })));
  const missingObjects = new Map(all.flatMap(({ missing }) => missing.first.map(({ object, why }) => [object, why])));
  const missingCount = Math.max(...all.map(({ missing }) => missing.count));
  return (
    <>
      <div className={style['facts']}>
        <Facts title="Time" columns={columns} rows={TIME} />
        <Facts title="Objects" columns={columns} rows={OBJECTS} />
        <Facts title="Bytes" columns={columns} rows={BYTES} />
      </div>
      {missingCount > 0 && (
        <table className={style['wide']}>
          <caption>{counted(missingCount, 'missing object')}</caption>
          <tbody>
            {[...missingObjects].map(([object, why]) => (
              <tr key={object}>
                <th scope="row" className={style['name']}>
                  {object}
                </th>
                <td className={style['why']}>{why}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {units.length > 0 && (
        <table className={style['wide']}>
          <caption>Queriers, slowest first</caption>
          <thead>
            <tr>
              {['Querier', 'For', 'Objects', 'Datasets', 'From the store', 'From disk', 'In memory', 'Time'].map((head, index) => (
                <th key={head} scope="col" className={index > 1 ? style['number'] : undefined}>
                  {head}
                </th>
              ))}
              <th scope="col">Notes</th>
            </tr>
          </thead>
          <tbody>
            {units.map(({ title, unit }, index) => (
              <tr key={index}>
                <th scope="row" className={style['name']}>
                  {unit.leaf === '' ? 'no answer' : unit.leaf}
                </th>
                <td>{title}</td>
                <td className={style['number']}>{formatCount(unit.objects)}</td>
                <td className={style['number']}>{formatCount(unit.datasets)}</td>
                <td className={style['number']}>{formatBytes(unit.effort.storeBytes)}</td>
                <td className={style['number']}>{formatBytes(unit.effort.diskBytes)}</td>
                <td className={style['number']}>{memoryHitRatio(unit.effort)}</td>
                <td className={style['number']}>{millis(unit.millis)}</td>
                <td className={style['why']}>{notes(unit)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </>
  );
}

interface Row {
  label: string;
  /** Explains the label. */
  hint?: string;
  /** Whether the row is a part of the row above. */
  isInner?: boolean;
  value: (explanation: Explanation) => ReactNode;
  /** Start and end in milliseconds since the query, drawn as a bar. */
  span?: (explanation: Explanation) => [number, number];
  /** The row is omitted if this is true for every query. */
  isOmitted?: (explanation: Explanation) => boolean;
}

const BAR_PIXELS = 64;
const STEPS = ['find', 'admit', 'scan', 'finish'] as const;

/** Steps are sequential. */
const step = (name: (typeof STEPS)[number], label: string, hint: string): Row => ({
  label,
  hint,
  value: ({ millis: times }) => millis(times[name]),
  span: ({ millis: times }) => {
    const start = STEPS.slice(0, STEPS.indexOf(name)).reduce((sum, before) => sum + times[before], 0);
    return [start, start + times[name]];
  },
});

const TIME: readonly Row[] = [
  { label: 'Total', value: ({ millis: { total } }) => <b>{millis(total)}</b> },
  step('find', 'Find objects', 'Catalog lookup of objects that may hold matching profiles'),
  step('admit', 'Wait for a permit', 'Queries of one tenant share a budget'),
  step('scan', 'Read and aggregate', 'From the first request to a querier until the last answer is merged'),
  { label: 'fetching', isInner: true, hint: 'From memory, disk or object store. Sum over all objects, which are read in parallel', value: ({ effort }) => millis(effort.fetchMillis) },
  { label: 'decoding, aggregating', isInner: true, hint: 'Sum over all objects, which are read in parallel', value: ({ effort }) => millis(effort.scanMillis) },
  { label: 'merging', isInner: true, hint: 'Results of objects, and answers of queriers', value: ({ effort, millis: times }) => millis(effort.mergeMillis + times.merge) },
  step('finish', 'Write the answer', 'Truncating to the requested size, resolving names, encoding'),
];

const objects = ({ objects: count, datasets }: { objects: number; datasets: number }): string => `${formatCount(count)} with ${counted(datasets, 'dataset')}`;

const prunedRow = (label: string, count: (datasets: Explanation['prunedDatasets']) => number): Row => ({
  label,
  isInner: true,
  value: ({ prunedDatasets }) => formatCount(count(prunedDatasets)),
});

const OBJECTS: readonly Row[] = [
  { label: 'Found', hint: 'Blocks and segments of the range; a dataset is one service in one object', value: ({ found }) => objects(found) },
  {
    label: 'Skipped',
    hint: 'Datasets that the catalog rules out',
    value: ({ prunedDatasets: { byService, byTime, byProfileType, byRetention } }) => counted(byService + byTime + byProfileType + byRetention, 'dataset'),
  },
  prunedRow('of another service', ({ byService }) => byService),
  prunedRow('of another time', ({ byTime }) => byTime),
  prunedRow('of another profile type', ({ byProfileType }) => byProfileType),
  prunedRow('past retention', ({ byRetention }) => byRetention),
  { label: 'Read', value: ({ read }) => objects(read) },
  {
    label: 'Answered by',
    hint: 'Rollups hold one sum per time window; the rest is read row by row',
    value: ({ read: { datasets, datasetsFromRollups: summed } }) =>
      datasets === 0 ? '—' : summed === 0 ? 'raw rows' : summed >= datasets ? 'rollups' : `rollups for ${formatCount(summed)} of ${formatCount(datasets)}`,
  },
  {
    label: 'Missing',
    value: ({ missing: { count } }) => (count === 0 ? 'nothing' : <span className={style['warning']}>{counted(count, 'object')}</span>),
  },
];

const BYTES: readonly Row[] = [
  { label: 'Expected', hint: 'Estimate made before reading', value: ({ found }) => formatBytes(found.estimatedBytes) },
  { label: 'Used', hint: 'As stored: encoded and compressed', value: ({ read }) => formatBytes(read.usedBytes) },
  { label: 'from object store', isInner: true, value: ({ effort: { storeBytes } }) => formatBytes(storeBytes) },
  { label: 'store requests', isInner: true, value: ({ effort: { storeRequests } }) => formatCount(storeRequests) },
  { label: 'from disk cache', isInner: true, value: ({ effort: { diskBytes } }) => formatBytes(diskBytes) },
  { label: 'parts in memory', isInner: true, hint: 'Decoded parts of objects; the others were fetched and decoded', value: ({ effort }) => memoryHitRatio(effort) },
  {
    label: 'Work',
    hint: 'Units of work sent to queriers',
    value: ({ units: { count } }) => counted(count, 'unit'),
  },
  { label: 'retried elsewhere', isInner: true, value: ({ units }) => formatCount(units.retried) },
  { label: 'slow, sent twice', isInner: true, value: ({ units }) => formatCount(units.hedged) },
  { label: 'Catalog version', value: ({ snapshot: { version } }) => String(version) },
  {
    label: 'as of',
    isInner: true,
    value: ({ snapshot: { staleMillis } }) => (staleMillis === null ? 'now' : <span className={style['warning']}>{formatAge(staleMillis)} before</span>),
  },
  { label: 'lookup repeated', isInner: true, hint: 'Objects of the first version were gone', value: () => 'yes', isOmitted: ({ snapshot }) => !snapshot.startedOver },
];

function Facts({ title, columns, rows }: { title: string; columns: Column[]; rows: readonly Row[] }) {
  const shown = rows.filter(({ isOmitted }) => !isOmitted || !columns.every(({ explained }) => isOmitted(explained.explanation)));
  return (
    <table>
      <thead>
        <tr>
          <th scope="col" className={style['title']}>
            {title}
          </th>
          {columns.map((column) => (
            <th key={column.title} scope="col" className={style['number']}>
              {column.title}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {shown.map(({ label, hint, isInner, value, span }) => (
          <tr key={label}>
            <th scope="row" className={isInner ? style['inner'] : undefined}>
              {hint === undefined ? label : <Term hint={hint}>{label}</Term>}
            </th>
            {columns.map((column) => (
              <td key={column.title} className={style['number']}>
                {span && <Bar span={span(column.explained.explanation)} total={column.explained.explanation.millis.total} />}
                <span className={span && style['besideBar']}>{value(column.explained.explanation)}</span>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Bar({ span: [start, end], total }: { span: [number, number]; total: number }) {
  const x = (time: number): number => (total > 0 ? Math.min(1, time / total) * (BAR_PIXELS - 1) : 0);
  return (
    <svg className={style['bar']} width={BAR_PIXELS} height="8" aria-hidden="true">
      <rect x={x(start)} width={Math.max(1, x(end) - x(start))} height="8" />
    </svg>
  );
}

/** `12.04 ms`: always two decimals, so that columns align. */
function millis(milliseconds: number): string {
  return `${milliseconds.toFixed(2).replace(/\B(?=(\d{3})+\.)/g, ',')} ms`;
}

function memoryHitRatio({ memoryHits, memoryMisses }: UnitOfWork['effort']): string {
  const all = memoryHits + memoryMisses;
  return all === 0 ? '—' : `${formatCount(memoryHits)} of ${formatCount(all)}`;
}

function notes({ retried, hedged }: UnitOfWork): string {
  return [retried === '' ? '' : `retried: ${retried}`, hedged ? 'slow, sent twice' : ''].filter((note) => note !== '').join('; ');
}
