// A mock querier with fixed data, for development and tests without a server.
//
// Owns: two services with three profile types over the last six hours, in Connect JSON.
// A `maxNodes` above USUAL_BARS_MAX makes the profile that large; `PYROGRAPH_MOCK_EMPTY=1` removes all data.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Plugin } from 'vite';
import { profile, type Encoded } from './profile.ts';

const CPU = 'process_cpu:cpu:nanoseconds:cpu:nanoseconds';
const SPACE = 'memory:alloc_space:bytes:space:bytes';
const INUSE = 'memory:inuse_space:bytes:space:bytes';
const TYPES: Record<string, string[]> = { pyrograph: [CPU], checkout: [CPU, INUSE, SPACE] };
const LABELS: Record<string, string[]> = {
  pod: ['checkout-0', 'checkout-1', 'checkout-2'],
  region: ['eu-west-1', 'us-east-1'],
  version: ['1.4.0', '1.5.0-rc.1'],
};
/** Bars of a profile, unless the page asks for more than its default. */
const USUAL_BARS = 3000;
const USUAL_BARS_MAX = 16_384;
const RETENTION_MILLISECONDS = 6 * 3_600_000;

export function mockApi(): Plugin {
  const handle = (request: IncomingMessage, response: ServerResponse, next: () => void): void => {
    const method = /^\/querier\.v1\.QuerierService\/(\w+)$/.exec(request.url ?? '')?.[1];
    if (!method) return next();
    let text = '';
    request.on('data', (chunk: Buffer) => (text += chunk.toString()));
    request.on('end', () => {
      try {
        const body = answer(method, JSON.parse(text || '{}') as Request);
        send(response, 200, request.headers['x-pyrograph-explain'] === 'true' ? { ...body, explained: EXPLAINED } : body);
      } catch (error) {
        send(response, 400, { code: 'invalid_argument', message: (error as Error).message });
      }
    });
  };
  return {
    name: 'mock-api',
    configureServer: (server) => void server.middlewares.use(handle),
    configurePreviewServer: (server) => void server.middlewares.use(handle),
  };
}

interface Request {
  start?: string;
  end?: string;
  name?: string;
  matchers?: string[];
  labelSelector?: string;
  profileTypeID?: string;
  groupBy?: string[];
  step?: number;
  maxNodes?: string;
}

const STATS = { profiles: 1204, samples: 36_200, bytes: 2_150_000, blocks: 12, millis: 8.5 };

const EFFORT = {
  millis: 24.1, fetchMillis: 21.42, scanMillis: 12.7, mergeMillis: 0.4, knownDatasets: 14,
  memoryHits: 22, memoryMisses: 6, diskBytes: 412_000, storeBytes: 1_210_000, storeRequests: 5,
};
const EXPLAINED = {
  questions: [
    {
      question: 'merge',
      snapshot: { version: 1812, epoch: 4, staleMillis: null, startedOver: false },
      found: { objects: 12, datasets: 14, estimatedBytes: 2_300_000 },
      prunedDatasets: { byService: 31, byTime: 4, byProfileType: 2, byRetention: 0 },
      millis: { total: 28.313, find: 0.812, admit: 0.004, scan: 24.9, merge: 0.31, finish: 2.597 },
      read: { objects: 12, datasets: 14, datasetsFromRollups: 9, profiles: 1204, samples: 36_200, usedBytes: 2_150_000 },
      effort: EFFORT,
      units: {
        count: 2, retried: 1, hedged: 1,
        slowest: [
          { leaf: 'querier-1', objects: 8, datasets: 9, estimatedBytes: 1_500_000, millis: 24.1, retried: 'querier-0: connection refused', hedged: false, effort: EFFORT },
          { leaf: 'querier-2', objects: 4, datasets: 5, estimatedBytes: 800_000, millis: 9.55, retried: null, hedged: true, effort: { ...EFFORT, storeBytes: 0, diskBytes: 0 } },
        ],
      },
      missing: { count: 0, first: [] },
    },
  ],
};

function send(response: ServerResponse, status: number, body: object): void {
  const headers = { 'Content-Type': 'application/json', 'X-Request-Id': 'mock-0001' };
  response.writeHead(status, status === 200 ? { ...headers, 'X-Pyrograph-Query-Stats': JSON.stringify(STATS) } : headers);
  response.end(JSON.stringify(body));
}

function answer(method: string, request: Request): object {
  const now = Date.now();
  const empty = process.env['PYROGRAPH_MOCK_EMPTY'] === '1';
  const hasData = !empty && Number(request.end) > now - RETENTION_MILLISECONDS;
  switch (method) {
    case 'GetProfileStats':
      return empty
        ? {}
        : { dataIngested: true, oldestProfileTime: String(now - RETENTION_MILLISECONDS), newestProfileTime: String(now - 4000) };
    case 'Series':
      return hasData
        ? {
            labelsSet: Object.entries(TYPES).flatMap(([service, types]) =>
              types.map((type) => ({
                labels: [
                  { name: '__profile_type__', value: type },
                  { name: 'service_name', value: service },
                ],
              })),
            ),
          }
        : {};
    case 'ProfileTypes':
      return hasData ? { profileTypes: [CPU, INUSE, SPACE].map((ID) => ({ ID })) } : {};
    case 'LabelNames':
      return hasData ? { names: ['__name__', '__profile_type__', ...Object.keys(LABELS), 'service_name'] } : {};
    case 'LabelValues':
      if (!request.name) throw new Error('name is required');
      return hasData ? { names: request.name === 'service_name' ? Object.keys(TYPES) : (LABELS[request.name] ?? []) } : {};
    case 'SelectMergeStacktraces':
      return { flamegraph: hasData && known(request) ? scaled(request) : EMPTY };
    case 'SelectSeries':
      return hasData && known(request) ? series(request, now) : {};
    default:
      throw new Error(`no such method: ${method}`);
  }
}

const EMPTY: Encoded = { names: ['total'], levels: [{ values: ['0', '0', '0', '0'] }], total: '0', maxSelf: '0' };

function known(request: Request): boolean {
  const selector = request.labelSelector ?? '';
  if (selector === '') throw new Error('label selector is empty, {} matches everything');
  if (selector.includes('=~"["')) throw new Error('matcher pod=~"[": missing closing ]');
  return !/service_name="(?!checkout|pyrograph)/.test(selector) && Object.values(TYPES).flat().includes(request.profileTypeID ?? '');
}

/** A larger total for a longer range, a smaller one for each matcher, so that a change is visible. */
function scaled(request: Request): Encoded {
  const minutes = Math.max(1, (Number(request.end) - Number(request.start)) / 60_000);
  const matchers = (request.labelSelector ?? '').split('=').length - 1;
  const asked = Number(request.maxNodes ?? 0);
  return profile(asked > USUAL_BARS_MAX ? asked : USUAL_BARS, Math.round(minutes * 9e8) / matchers);
}

function series(request: Request, now: number): object {
  const step = request.step ?? 15;
  const label = request.groupBy?.[0];
  const values = label === undefined ? [undefined] : (LABELS[label] ?? [label === 'service_name' ? 'checkout' : '']);
  return {
    series: values.map((value, index) => ({
      labels: label === undefined ? [] : [{ name: label, value }],
      points: points(Number(request.start), Number(request.end), step, now, index),
    })),
  };
}

function points(start: number, end: number, step: number, now: number, phase: number): object[] {
  const out: object[] = [];
  for (let time = start; time <= end; time += step * 1000) {
    if (time > now || time < now - RETENTION_MILLISECONDS) continue;
    const wave = 1.4 + Math.sin(time / 700_000 + phase) * 0.6 + Math.sin(time / 91_000 + phase * 2) * 0.25;
    out.push({ timestamp: String(time), value: Math.round(wave * step * 4e8) });
  }
  return out;
}
