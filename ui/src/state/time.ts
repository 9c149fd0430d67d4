// Times in text: `now-1h`, `now`, Unix milliseconds, `2026-11-24 10:00`.
//
// `/pyroscope/render` accepts the same texts for `from` and `until`, so that a link works in both
// places.

export interface Range {
  /** Unix milliseconds. */
  from: number;
  until: number;
}

const UNIT_MILLISECONDS: Record<string, number> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 7 * 86_400_000,
  M: 30 * 86_400_000,
  y: 365 * 86_400_000,
};

const SPAN = /^(\d+)(ms|s|min|m|h|d|w|M|y)$/;
const DATE = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?(Z)?$/;

/** Unix milliseconds; null if the text is malformed. */
export function parseTime(text: string, now: number): number | null {
  const trimmed = text.trim();
  if (trimmed === 'now') return now;
  if (trimmed.startsWith('now-') || trimmed.startsWith('now+')) {
    const span = parseSpan(trimmed.slice(4));
    if (span === null) return null;
    return trimmed[3] === '-' ? now - span : now + span;
  }
  if (/^\d{9,19}$/.test(trimmed)) return fromDigits(trimmed);
  const date = DATE.exec(trimmed);
  if (!date) return null;
  const [year, month, day, hour, minute, second] = date.slice(1, 7).map((part) => Number(part ?? 0)) as [
    number, number, number, number, number, number,
  ];
  const time = date[7]
    ? Date.UTC(year, month - 1, day, hour, minute, second)
    : new Date(year, month - 1, day, hour, minute, second).getTime();
  return Number.isFinite(time) ? time : null;
}

/** The number of digits selects seconds, milliseconds, microseconds or nanoseconds. */
function fromDigits(digits: string): number {
  const value = Number(digits);
  if (digits.length >= 18) return Math.floor(value / 1e6);
  if (digits.length >= 15) return Math.floor(value / 1e3);
  return digits.length >= 12 ? value : value * 1000;
}

/** Milliseconds of `15m`; null if the text is malformed. */
export function parseSpan(text: string): number | null {
  const match = SPAN.exec(text.trim());
  if (!match) return null;
  const unit = match[2] === 'min' ? 'm' : match[2]!;
  return Number(match[1]) * UNIT_MILLISECONDS[unit]!;
}

/** Null if an end is malformed or the start is not before the end. */
export function resolveRange(from: string, until: string, now: number): Range | null {
  const start = parseTime(from, now);
  const end = parseTime(until, now);
  if (start === null || end === null || start >= end) return null;
  return { from: Math.max(1, start), until: end };
}

export function isRelative(text: string): boolean {
  return text.trim().startsWith('now');
}

/** `last 1 h`, or both ends. */
export function describeRange(from: string, until: string): string {
  const back = /^now-(\d+)(\w+)$/.exec(from.trim());
  if (back && until.trim() === 'now') return `last ${back[1]} ${back[2] === 'm' ? 'min' : back[2]}`;
  const now = Date.now();
  const range = resolveRange(from, until, now);
  if (!range || isRelative(from) || isRelative(until)) return `${from} to ${until}`;
  const sameDay = new Date(range.from).toDateString() === new Date(range.until).toDateString();
  const today = new Date(range.from).toDateString() === new Date(now).toDateString();
  const short = range.until - range.from < 5 * 60_000;
  const end = sameDay ? clock(range.until, short) : dateTime(range.until);
  return `${today && sameDay ? clock(range.from, short) : dateTime(range.from)} – ${end}`;
}

export function clock(time: number, seconds = false): string {
  const date = new Date(time);
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}${seconds ? `:${two(date.getSeconds())}` : ''}`;
}

/** `2026-11-24 10:00` in local time. */
export function dateTime(time: number, seconds = false): string {
  const date = new Date(time);
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(time, seconds)}`;
}

const STEPS_SECONDS = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800,
];

/** Seconds per point for at most `points` points; at least 10 s, the usual interval of agents. */
export function seriesStep(range: Range, points: number): number {
  const wanted = Math.max(10, (range.until - range.from) / 1000 / Math.max(1, points));
  return STEPS_SECONDS.find((step) => step >= wanted) ?? Math.ceil(wanted / 604_800) * 604_800;
}

/** About `count` round times for the ticks of an axis. */
export function timeTicks(range: Range, count: number): number[] {
  const step = seriesTickStep((range.until - range.from) / Math.max(1, count));
  const zone = new Date(range.from).getTimezoneOffset() * 60_000;
  const ticks: number[] = [];
  for (let tick = Math.ceil((range.from - zone) / step) * step + zone; tick <= range.until; tick += step) ticks.push(tick);
  return ticks;
}

function seriesTickStep(wanted: number): number {
  const steps = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
    2_592_000,
  ];
  return (steps.find((step) => step * 1000 >= wanted) ?? 31_536_000) * 1000;
}
