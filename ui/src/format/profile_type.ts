// Names of profile types, and the scale of their values over time.
import { formatValue, quantityOf } from './units';

export interface ProfileType {
  id: string;
  name: string;
  sampleType: string;
  sampleUnit: string;
}

/** Reads `name:sample type:sample unit:period type:period unit`; parts may be empty. */
export function parseType(id: string): ProfileType {
  const [name = '', sampleType = '', sampleUnit = ''] = id.split(':');
  return { id, name, sampleType, sampleUnit };
}

/** `CPU`, `memory alloc space`, `goroutine`. */
export function typeLabel(id: string): string {
  const { name, sampleType } = parseType(id);
  if (name === '') return id === '' ? 'Profile type' : id;
  if (name === 'process_cpu' && sampleType === 'cpu') return 'CPU';
  const words = (text: string): string => text.replaceAll('_', ' ');
  const head = words(name.replace(/^process_cpu$/, 'CPU'));
  return sampleType === '' || sampleType === name || `${sampleType}s` === name ? head : `${head} ${words(sampleType)}`;
}

/** How the values of a time series are converted and written. */
export interface SeriesScale {
  divideBySeconds: boolean;
  format: (value: number) => string;
  /** Shorter, for the axis: the unit is in the title. */
  tick: (value: number) => string;
  axis: string;
  /** Whether the axis has multiples of powers of 1024. */
  binary: boolean;
}

/** Memory in use, live objects and goroutines are levels; all other values accumulate and are shown per second. */
export function seriesScale(id: string): SeriesScale {
  const { sampleType, sampleUnit, name } = parseType(id);
  const isLevel = sampleType.startsWith('inuse') || name.startsWith('goroutine') || sampleType.startsWith('live');
  const plain = (value: number): string => formatValue(value, sampleUnit);
  const binary = quantityOf(sampleUnit) === 'bytes';
  if (isLevel) return { divideBySeconds: false, axis: '', binary, format: plain, tick: plain };
  if (sampleUnit === 'nanoseconds') {
    return {
      divideBySeconds: true,
      axis: 'cores',
      binary,
      format: (value) => `${cores(value / 1e9)} cores`,
      tick: (value) => cores(value / 1e9),
    };
  }
  return { divideBySeconds: true, axis: 'per second', binary, format: (value) => `${plain(value)}/s`, tick: plain };
}

function cores(count: number): string {
  if (count === 0) return '0';
  return count >= 100 ? count.toFixed(0) : count >= 10 ? count.toFixed(1) : count >= 0.1 ? count.toFixed(2) : count.toPrecision(2);
}

/** The type that a new page opens with: CPU if available. */
export function preferredType(ids: readonly string[]): string {
  return (
    ids.find((id) => id.startsWith('process_cpu:cpu:')) ??
    ids.find((id) => id.startsWith('process_cpu:')) ??
    ids.find((id) => id.startsWith('wall:')) ??
    ids[0] ??
    ''
  );
}
