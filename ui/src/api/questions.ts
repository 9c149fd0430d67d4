// The questions of the page in its own words.
import type { FlameModel } from '../flamegraph';
import { formatSelector, SERVICE_LABEL, type Matcher, type Query } from '../state/query';
import type { Range } from '../state/time';
import { call, callAs, type Question } from './client';
import { decodeFlameGraph } from './decode';
import type { Report } from './report';
import type {
  GetProfileStatsResponse,
  LabelsResponse,
  SelectSeriesResponse,
  SeriesResponse,
} from './types';

const TYPE_LABEL = '__profile_type__';

/** Series drawn at most; the heaviest win. */
export const SERIES_MAX = 10;

function within(range: Range): { start: string; end: string } {
  return { start: String(Math.floor(range.from)), end: String(Math.ceil(range.until)) };
}

/** Services of the range with their profile types, both sorted. */
export async function askServices(range: Range, signal: AbortSignal): Promise<Map<string, string[]>> {
  const body = await call<SeriesResponse>(
    'Series',
    { matchers: [], labelNames: [SERVICE_LABEL, TYPE_LABEL], ...within(range) },
    signal,
  );
  const services = new Map<string, Set<string>>();
  for (const { labels = [] } of body.labelsSet ?? []) {
    const service = labels.find((label) => label.name === SERVICE_LABEL)?.value;
    const type = labels.find((label) => label.name === TYPE_LABEL)?.value;
    if (!service || !type) continue;
    const types = services.get(service) ?? new Set();
    services.set(service, types.add(type));
  }
  return new Map([...services].sort(([a], [b]) => a.localeCompare(b)).map(([service, types]) => [service, [...types].sort()]));
}

export interface Stats {
  dataIngested: boolean;
  /** Unix milliseconds; null when unknown. */
  oldest: number | null;
  newest: number | null;
}

export async function askStats(signal: AbortSignal): Promise<Stats> {
  const body = await call<GetProfileStatsResponse>('GetProfileStats', {}, signal);
  const time = (text: string | number = 0): number | null => (Number(text) > 0 && Number(text) < 8.64e15 ? Number(text) : null);
  return { dataIngested: body.dataIngested === true, oldest: time(body.oldestProfileTime), newest: time(body.newestProfileTime) };
}

export interface FlameAnswer {
  model: FlameModel;
  milliseconds: number;
  bytes: number;
  report: Report;
}

export function flameGraphQuestion(query: Query, range: Range, maxNodes: number): Question {
  const request = { profileTypeID: query.type, labelSelector: formatSelector(query.matchers), ...within(range), maxNodes: String(maxNodes) };
  return { method: 'SelectMergeStacktraces', request };
}

export async function askFlameGraph(query: Query, range: Range, maxNodes: number, signal: AbortSignal): Promise<FlameAnswer> {
  const question = flameGraphQuestion(query, range, maxNodes);
  const { body, milliseconds, bytes, report } = await callAs(question, signal, (text) => decodeFlameGraph(text, signal));
  return { model: body, milliseconds, bytes, report };
}

export interface TimeSeries {
  /** Value of the label that the series are split by; empty when there is one series. */
  name: string;
  /** Unix milliseconds of the end of each step; ascending. */
  times: number[];
  values: number[];
}

export interface SeriesAnswer {
  series: TimeSeries[];
  step: number;
  range: Range;
  report: Report;
}

/** The grid of the answer is anchored at whole steps, so that a refresh moves no bar. */
export function seriesQuestion(query: Query, range: Range, step: number, by: string): Question {
  const width = step * 1000;
  const grid = { from: Math.floor(range.from / width) * width + width, until: Math.ceil(range.until / width) * width };
  const request = {
    profileTypeID: query.type,
    labelSelector: formatSelector(query.matchers),
    ...within(grid),
    groupBy: by === '' ? [] : [by],
    step,
    limit: String(SERIES_MAX),
  };
  return { method: 'SelectSeries', request };
}

export async function askSeries(query: Query, range: Range, step: number, by: string, signal: AbortSignal): Promise<SeriesAnswer> {
  const question = seriesQuestion(query, range, step, by);
  const { body, report } = await callAs(question, signal, (text) => JSON.parse(text) as SelectSeriesResponse);
  const series = (body.series ?? []).map(({ labels = [], points = [] }) => ({
    name: by === '' ? '' : (labels.find((label) => label.name === by)?.value ?? ''),
    times: points.map((point) => Number(point.timestamp ?? 0)),
    values: points.map((point) => point.value ?? 0),
  }));
  return { series, step, range, report };
}

/** Label names that the other matchers leave, without those the server made itself. */
export async function askLabelNames(type: string, matchers: readonly Matcher[], range: Range, signal: AbortSignal): Promise<string[]> {
  const body = await call<LabelsResponse>('LabelNames', { matchers: [selectorOf(type, matchers)], ...within(range) }, signal);
  return (body.names ?? []).filter((name) => !name.startsWith('__'));
}

export async function askLabelValues(
  name: string,
  type: string,
  matchers: readonly Matcher[],
  range: Range,
  signal: AbortSignal,
): Promise<string[]> {
  const body = await call<LabelsResponse>(
    'LabelValues',
    { name, matchers: [selectorOf(type, matchers)], ...within(range) },
    signal,
  );
  return body.names ?? [];
}

function selectorOf(type: string, matchers: readonly Matcher[]): string {
  const typed: Matcher[] = type === '' ? [] : [{ name: TYPE_LABEL, operator: '=', value: type.split(':').slice(0, 5).join(':') }];
  return formatSelector([...typed, ...matchers]);
}
