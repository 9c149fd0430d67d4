// What the server says beside an answer: what it read for it, and what the answer lacks.
//
// A server without these headers says nothing; the page then shows what it measured itself.

const STATS_HEADER = 'x-pyrograph-query-stats';
const PARTIAL_HEADER = 'x-pyrograph-partial';
const WHY_HEADER = 'x-pyrograph-partial-why';
const STALE_HEADER = 'x-pyrograph-stale';

export interface Report {
  /** null when the server does not say. */
  read: Read | null;
  /** Objects of the range that could not be read; their profiles are not in the answer. */
  missing: number;
  /** The first of them. */
  why: Lack[];
  /** Age in seconds of what the answer knows; null when it knows all. */
  stale: number | null;
}

export interface Lack {
  object: string;
  why: string;
}

export interface Read {
  profiles: number;
  samples: number;
  /** As stored: encoded and compressed. */
  bytes: number;
  objects: number;
  /** Time within the server. */
  milliseconds: number;
}

export function readReport(headers: Headers): Report {
  return {
    read: parseStats(headers.get(STATS_HEADER)),
    missing: parseMissing(headers.get(PARTIAL_HEADER)),
    why: parseWhy(headers.get(WHY_HEADER)),
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

/** Whatever the header says, its presence means that something is missing. */
function parseMissing(text: string | null): number {
  if (text === null) return 0;
  const count = Number(text);
  return Number.isFinite(count) && count >= 1 ? Math.floor(count) : 1;
}

function parseWhy(text: string | null): Lack[] {
  let list: unknown;
  try {
    list = JSON.parse(text ?? '[]');
  } catch {
    return [];
  }
  if (!Array.isArray(list)) return [];
  return list.filter((lack): lack is Lack => typeof lack?.object === 'string' && typeof lack?.why === 'string');
}

/** Whatever the header says, its presence means that the answer is stale. */
function parseStale(text: string | null): number | null {
  if (text === null) return null;
  const seconds = Number(text);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : 0;
}
