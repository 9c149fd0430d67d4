// The headers beside an answer: the amount of data read, missing objects, staleness.
//
// If a server sends none, the page shows its own measurements.

const STATS_HEADER = 'x-pyrograph-query-stats';
const PARTIAL_HEADER = 'x-pyrograph-partial';
const WHY_HEADER = 'x-pyrograph-partial-why';
const STALE_HEADER = 'x-pyrograph-stale';

export interface Report {
  /** Null if the server does not report it. */
  read: Read | null;
  /** Objects of the range that could not be read; their profiles are not in the answer. */
  missing: number;
  /** The first missing objects. */
  missingObjects: MissingObject[];
  /** Age of the catalog snapshot in seconds; null if it was up to date. */
  stale: number | null;
}

export interface MissingObject {
  object: string;
  why: string;
}

export interface Read {
  profiles: number;
  samples: number;
  /** As stored: encoded and compressed. */
  bytes: number;
  objects: number;
  /** Time spent in the server. */
  milliseconds: number;
}

export function readReport(headers: Headers): Report {
  return {
    read: parseStats(headers.get(STATS_HEADER)),
    missing: parseMissing(headers.get(PARTIAL_HEADER)),
    missingObjects: parseMissingObjects(headers.get(WHY_HEADER)),
    stale: parseStale(headers.get(STALE_HEADER)),
  };
}

function parseStats(text: string | null): Read | null {
  let stats: Record<string, unknown>;
  try {
    stats = JSON.parse(text ?? 'null') as Record<string, unknown>;
  } catch {
    return null;
  }
  if (typeof stats !== 'object' || stats === null) return null;
  const number = (name: string): number => (typeof stats[name] === 'number' ? stats[name] : 0);
  return {
    profiles: number('profiles'),
    samples: number('samples'),
    bytes: number('bytes'),
    objects: number('blocks'),
    milliseconds: number('millis'),
  };
}

/** A malformed header still means that at least one object is missing. */
function parseMissing(text: string | null): number {
  if (text === null) return 0;
  const count = Number(text);
  return Number.isFinite(count) && count >= 1 ? Math.floor(count) : 1;
}

function parseMissingObjects(text: string | null): MissingObject[] {
  let list: unknown;
  try {
    list = JSON.parse(text ?? '[]');
  } catch {
    return [];
  }
  if (!Array.isArray(list)) return [];
  return list.filter((item): item is MissingObject => typeof item?.object === 'string' && typeof item?.why === 'string');
}

/** A malformed header still means that the answer is stale. */
function parseStale(text: string | null): number | null {
  if (text === null) return null;
  const seconds = Number(text);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : 0;
}
