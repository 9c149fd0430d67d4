// Profile types as people call them, and how their values spread over time.
import { formatValue } from './units';

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

/** What the values of a series point are called after division by the seconds that it covers. */
export interface SeriesScale {
  divideBySeconds: boolean;
  format: (value: number) => string;
  axis: string;
}

/** Memory in use is a level; everything else accumulates and is shown per second. */
export function seriesScale(id: string): SeriesScale {
  const { sampleType, sampleUnit, name } = parseType(id);
  const isLevel = sampleType.startsWith('inuse') || name.startsWith('goroutine') || sampleType.startsWith('live');
  if (isLevel) return { divideBySeconds: false, axis: '', format: (value) => formatValue(value, sampleUnit) };
  if (sampleUnit === 'nanoseconds') {
    return { divideBySeconds: true, axis: 'cores', format: (value) => formatCores(value / 1e9) };
  }
  return { divideBySeconds: true, axis: 'per second', format: (value) => `${formatValue(value, sampleUnit)}/s` };
}

function formatCores(cores: number): string {
  if (cores === 0) return '0';
  return cores < 1 ? `${(cores * 1000).toFixed(cores < 0.01 ? 1 : 0)} mcores` : `${cores.toFixed(2)} cores`;
}

/** The type that a new page opens with: CPU where there is one. */
export function preferredType(ids: readonly string[]): string {
  return (
    ids.find((id) => id.startsWith('process_cpu:cpu:')) ??
    ids.find((id) => id.startsWith('process_cpu:')) ??
    ids.find((id) => id.startsWith('wall:')) ??
    ids[0] ??
    ''
  );
}
