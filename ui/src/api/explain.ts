// The explanation inside an answer: where the time went, what was read and skipped.
//
// Owns: fitting the explanation of any server version into the shape that the page shows.

/** Request headers that ask for an explanation. */
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
  /** `scan` contains `merge`; the other steps are sequential. */
  millis: { total: 0, find: 0, admit: 0, scan: 0, merge: 0, finish: 0 },
  read: { objects: 0, datasets: 0, datasetsFromRollups: 0, usedBytes: 0 },
  /** Sums over all queriers; times may exceed `millis.scan`. */
  effort: EFFORT,
  units: {
    count: 0,
    retried: 0,
    hedged: 0,
    slowest: [{ leaf: '', objects: 0, datasets: 0, millis: 0, retried: '', hedged: false, effort: EFFORT }],
  },
  missing: { count: 0, first: [{ object: '', why: '' }] },
};

/** The explanation of one query. Times in milliseconds, sizes in bytes as stored. */
export type Explanation = typeof EXPLANATION;
export type UnitOfWork = Explanation['units']['slowest'][number];

export interface Explained {
  /** As received, for copying. */
  raw: unknown;
  explanation: Explanation;
  /** Unix milliseconds. */
  answeredAt: number;
}

/** Reads the field `explained` of an answer; null if it is absent or malformed. */
export function readExplained(field: unknown, answeredAt: number): Explained | null {
  const { questions } = (field ?? {}) as { questions?: unknown };
  const raw: unknown = Array.isArray(questions) ? questions[0] : undefined;
  return raw === undefined ? null : { raw, explanation: fitToShape(EXPLANATION, raw), answeredAt };
}

/** Replaces parts of `value` that are absent or of the wrong type by those of `shape`. The one element of a list is the shape of all. */
function fitToShape<T>(shape: T, value: unknown): T {
  if (shape === null) return (typeof value === 'number' ? value : null) as T;
  if (Array.isArray(shape)) return (Array.isArray(value) ? value.map((one) => fitToShape<unknown>(shape[0], one)) : []) as T;
  if (typeof shape !== 'object') return typeof value === typeof shape ? (value as T) : shape;
  const parts = (typeof value === 'object' ? value : null) as Record<string, unknown> | null;
  return Object.fromEntries(Object.entries(shape).map(([name, part]) => [name, fitToShape<unknown>(part, parts?.[name])])) as T;
}
