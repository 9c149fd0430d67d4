// The calls that the page makes, in types of the page.
import type { FlameModel } from '../flamegraph';
import { formatSelector, SERVICE_LABEL, type Matcher, type Query } from '../state/query';
import type { Range } from '../state/time';
import { call, json, type Reply } from './client';
import { decodeFlameGraph } from './decode';
import type {
  GetProfileStatsResponse,
  LabelNamesRequest,
  LabelsResponse,
  LabelValuesRequest,
  SelectMergeStacktracesRequest,
  SelectSeriesRequest,
  SelectSeriesResponse,
  SeriesRequest,
  SeriesResponse,
} from './types';

const TYPE_LABEL = '__profile_type__';

/** Maximum number of series in an answer; the heaviest are returned. */
export const SERIES_MAX = 10;

function boundsOf(range: Range): { start: string; end: string } {
  return { start: String(Math.floor(range.from)), end: String(Math.ceil(range.until)) };
}

/** Services of the range with their profile types, both sorted. */
export async function askServices(range: Range, signal: AbortSignal): Promise<Reply<Map<string, string[]>>> {
  const request: SeriesRequest = { matchers: [], labelNames: [SERVICE_LABEL, TYPE_LABEL], ...boundsOf(range) };
  return call({ method: 'Series', request }, signal, json(servicesOf));
}

function servicesOf({ labelsSet = [] }: SeriesResponse): Map<string, string[]> {
  const services = new Map<string, Set<string>>();
  for (const { labels = [] } of labelsSet) {
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
  /** Unix milliseconds; null if unknown. */
  oldest: number | null;
  newest: number | null;
}

export async function askStats(signal: AbortSignal): Promise<Stats> {
  return (await call({ method: 'GetProfileStats', request: {} }, signal, json(statsOf))).body;
}

function statsOf({ dataIngested, oldestProfileTime, newestProfileTime }: GetProfileStatsResponse): Stats {
  const time = (text: string | number = 0): number | null => (Number(text) > 0 && Number(text) < 8.64e15 ? Number(text) : null);
  return { dataIngested: dataIngested === true, oldest: time(oldestProfileTime), newest: time(newestProfileTime) };
}

export async function askFlameGraph(
  query: Query,
  range: Range,
  maxNodes: number,
  explain: boolean,
  signal: AbortSignal,
): Promise<Reply<FlameModel>> {
  const request: SelectMergeStacktracesRequest = {
    profileTypeID: query.type,
    labelSelector: formatSelector(query.matchers),
    ...boundsOf(range),
    maxNodes: String(maxNodes),
  };
  return call({ method: 'SelectMergeStacktraces', request, explain }, signal, (text) => decodeFlameGraph(text, signal));
}

export interface TimeSeries {
  /** Value of the label that splits the series; empty if there is one series. */
  name: string;
  /** End of each step in Unix milliseconds, ascending. */
  times: number[];
  values: number[];
}

export interface SeriesOverTime {
  series: TimeSeries[];
  /** Seconds. */
  step: number;
  range: Range;
}

/** Aligns the range to whole steps, so that a refresh does not shift the columns. */
export async function askSeries(
  query: Query,
  range: Range,
  step: number,
  splitBy: string,
  explain: boolean,
  signal: AbortSignal,
): Promise<Reply<SeriesOverTime>> {
  const width = step * 1000;
  const grid = { from: Math.floor(range.from / width) * width + width, until: Math.ceil(range.until / width) * width };
  const request: SelectSeriesRequest = {
    profileTypeID: query.type,
    labelSelector: formatSelector(query.matchers),
    ...boundsOf(grid),
    groupBy: splitBy === '' ? [] : [splitBy],
    step,
    limit: String(SERIES_MAX),
  };
  const convert = ({ series = [] }: SelectSeriesResponse): SeriesOverTime => ({ series: series.map((one) => timeSeriesOf(one, splitBy)), step, range });
  return call({ method: 'SelectSeries', request, explain }, signal, json(convert));
}

function timeSeriesOf({ labels = [], points = [] }: NonNullable<SelectSeriesResponse['series']>[number], splitBy: string): TimeSeries {
  return {
    name: splitBy === '' ? '' : (labels.find((label) => label.name === splitBy)?.value ?? ''),
    times: points.map((point) => Number(point.timestamp ?? 0)),
    values: points.map((point) => point.value ?? 0),
  };
}

/** Label names of the series that match, without the internal ones. */
export async function askLabelNames(type: string, matchers: readonly Matcher[], range: Range, signal: AbortSignal): Promise<Reply<string[]>> {
  const request: LabelNamesRequest = { matchers: [selectorOf(type, matchers)], ...boundsOf(range) };
  return call({ method: 'LabelNames', request }, signal, json(({ names = [] }: LabelsResponse) => names.filter((name) => !name.startsWith('__'))));
}

export async function askLabelValues(
  name: string,
  type: string,
  matchers: readonly Matcher[],
  range: Range,
  signal: AbortSignal,
): Promise<Reply<string[]>> {
  const request: LabelValuesRequest = { name, matchers: [selectorOf(type, matchers)], ...boundsOf(range) };
  return call({ method: 'LabelValues', request }, signal, json(({ names = [] }: LabelsResponse) => names));
}

function selectorOf(type: string, matchers: readonly Matcher[]): string {
  const typed: Matcher[] = type === '' ? [] : [{ name: TYPE_LABEL, operator: '=', value: type.split(':').slice(0, 5).join(':') }];
  return formatSelector([...typed, ...matchers]);
}
