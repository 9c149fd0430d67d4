// Formats numbers with units.

export type Quantity = 'time' | 'bytes' | 'count';

/** The quantity that a unit of a profile type measures. */
export function quantityOf(unit: string): Quantity {
  if (unit === 'nanoseconds' || unit === 'microseconds' || unit === 'milliseconds' || unit === 'seconds') return 'time';
  return unit === 'bytes' ? 'bytes' : 'count';
}

interface Scale {
  size: number;
  suffix: string;
}

const NANOSECONDS: Record<string, number> = { nanoseconds: 1, microseconds: 1e3, milliseconds: 1e6, seconds: 1e9 };
const TIME: readonly Scale[] = [
  { size: 1, suffix: 'ns' },
  { size: 1e3, suffix: 'µs' },
  { size: 1e6, suffix: 'ms' },
  { size: 1e9, suffix: 's' },
];
const BYTES: readonly Scale[] = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'].map((suffix, i) => ({ size: 1024 ** i, suffix }));
const COUNT: readonly Scale[] = ['', 'K', 'M', 'G', 'T'].map((suffix, i) => ({ size: 1000 ** i, suffix }));

function scales(quantity: Quantity): readonly Scale[] {
  return quantity === 'time' ? TIME : quantity === 'bytes' ? BYTES : COUNT;
}

function base(value: number, unit: string): number {
  return value * (NANOSECONDS[unit] ?? 1);
}

function scaleFor(value: number, quantity: Quantity): Scale {
  const all = scales(quantity);
  let best = all[0]!;
  for (const scale of all) if (Math.abs(value) >= scale.size) best = scale;
  return best;
}

/** `12.4 s`, `1.50 GiB`, `36.2 K`: three significant digits. Times from one minute on: `4 m 12 s`. */
export function formatValue(value: number, unit: string): string {
  const quantity = quantityOf(unit);
  if (value === 0) return quantity === 'count' ? '0' : quantity === 'bytes' ? '0 B' : '0 s';
  const inBase = base(value, unit);
  const seconds = quantity === 'time' ? Math.round(inBase / 1e9) : 0;
  if (Math.abs(seconds) >= 60) return `${seconds < 0 ? '-' : ''}${clockTime(Math.abs(seconds))}`;
  const scale = scaleFor(inBase, quantity);
  const number = digits(inBase / scale.size, scale.size === 1);
  return scale.suffix === '' ? number : `${number} ${scale.suffix}`;
}

/** `4 m 12 s`, `2 h 05 m`, `3 d 04 h`. */
function clockTime(seconds: number): string {
  const two = (part: number): string => String(part).padStart(2, '0');
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${two(Math.floor((seconds % 3600) / 60))} m`;
  return `${formatCount(Math.floor(seconds / 86_400))} d ${two(Math.floor((seconds % 86_400) / 3600))} h`;
}

/**
 * One scale for a whole column, so that its values align on the decimal point. Long times stay in
 * seconds.
 */
export function columnFormat(max: number, unit: string): (value: number) => string {
  const quantity = quantityOf(unit);
  const inBase = base(max, unit);
  const scale = scaleFor(quantity === 'time' ? Math.min(inBase, 1e9) : inBase, quantity);
  const whole = scale.size === 1;
  const suffix = scale.suffix === '' ? '' : ` ${scale.suffix}`;
  const places = whole ? 0 : 2;
  const least = 10 ** -places / 2;
  return (value) => {
    const scaled = base(value, unit) / scale.size;
    if (scaled > 0 && scaled < least) return `<${(10 ** -places).toFixed(places)}${suffix}`;
    return `${grouped(scaled.toFixed(places))}${suffix}`;
  };
}

/** `31.02%`. */
export function formatPercent(part: number, whole: number): string {
  return whole > 0 ? `${((100 * part) / whole).toFixed(2)}%` : '0.00%';
}

export function formatCount(value: number): string {
  return grouped(String(Math.round(value)));
}

/** `1 object`, `1,204 profiles`. */
export function counted(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? '' : 's'}`;
}

export function formatBytes(bytes: number): string {
  return formatValue(bytes, 'bytes');
}

/** `38 ms`, `1.24 s`. */
export function formatElapsed(milliseconds: number): string {
  return milliseconds < 1000 ? `${Math.max(1, Math.round(milliseconds))} ms` : `${(milliseconds / 1000).toFixed(2)} s`;
}

/** `12 s`, `5 min`, `3 h`, `2 d`. */
export function formatAge(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

function digits(value: number, whole: boolean): string {
  if (whole) return Number.isInteger(value) ? grouped(String(value)) : value.toFixed(1);
  const size = Math.abs(value);
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function grouped(number: string): string {
  const [whole, fraction] = number.split('.');
  const withCommas = whole!.replace(/\B(?=(\d{3})+$)/g, ',');
  return fraction === undefined ? withCommas : `${withCommas}.${fraction}`;
}
