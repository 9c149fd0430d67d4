// How an answer came about, as the answer itself tells when it was asked to.
//
// Owns: bringing what a server of another version tells into the shape that the page shows.

/** Of a question whose answer is to tell how it came about. */
export const EXPLAIN_HEADERS = { 'X-Pyrograph-Explain': 'true' };

const EFFORT = {
  fetchMillis: 0,
  scanMillis: 0,
  mergeMillis: 0,
  memoryHits: 0,
  memoryMisses: 0,
  diskBytes: 0,
  storeBytes: 0,
  storeRequests: 0,
};

const EXPLANATION = {
  snapshot: { version: 0, epoch: 0, staleMillis: null as number | null, startedOver: false },
  found: { objects: 0, datasets: 0, estimatedBytes: 0 },
  prunedDatasets: { byService: 0, byTime: 0, byProfileType: 0, byRetention: 0 },
  /** `scan` contains `merge`; the steps beside them follow one another. */
  millis: { total: 0, find: 0, admit: 0, scan: 0, merge: 0, finish: 0 },
  read: { objects: 0, datasets: 0, datasetsFromRollups: 0, usedBytes: 0 },
  /** Of all queriers; times are sums, and may exceed `millis.scan`. */
  effort: EFFORT,
  units: {
    count: 0,
    retried: 0,
    hedged: 0,
    slowest: [{ leaf: '', objects: 0, datasets: 0, millis: 0, retried: '', hedged: false, effort: EFFORT }],
  },
  missing: { count: 0, first: [{ object: '', why: '' }] },
};

/** What one question took. Times in milliseconds, sizes in bytes as stored. */
export type Explanation = typeof EXPLANATION;
export type UnitOfWork = Explanation['units']['slowest'][number];

export interface Explained {
  /** What the server told, for copying. */
  told: unknown;
  explanation: Explanation;
  /** Unix milliseconds. */
  at: number;
}

/** Reads the field `explained` of an answer; null when it tells nothing. */
export function readExplained(field: unknown, at: number): Explained | null {
  const { questions } = (field ?? {}) as { questions?: unknown };
  const told: unknown = Array.isArray(questions) ? questions[0] : undefined;
  return told === undefined ? null : { told, explanation: inShapeOf(EXPLANATION, told), at };
}

/** Whatever is absent, or of another type than in `shape`, is as there. A list has the shape of its one element. */
function inShapeOf<T>(shape: T, told: unknown): T {
  if (shape === null) return (typeof told === 'number' ? told : null) as T;
  if (Array.isArray(shape)) return (Array.isArray(told) ? told.map((one) => inShapeOf<unknown>(shape[0], one)) : []) as T;
  if (typeof shape !== 'object') return typeof told === typeof shape ? (told as T) : shape;
  const parts = (typeof told === 'object' ? told : null) as Record<string, unknown> | null;
  return Object.fromEntries(Object.entries(shape).map(([name, part]) => [name, inShapeOf<unknown>(part, parts?.[name])])) as T;
}
