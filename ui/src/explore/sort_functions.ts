// Sorting of the function table.
import type { FlameModel, FunctionSums } from '../flamegraph';
import type { SortColumn } from '../state/url';

/** Name ids in table order; equal values are sorted by name. */
export function sortFunctions(model: FlameModel, sums: FunctionSums, sort: SortColumn, descending: boolean): Uint32Array {
  const rows = sums.present.slice();
  const sign = descending ? -1 : 1;
  const byName = (a: number, b: number): number => (model.names[a]! < model.names[b]! ? -1 : 1);
  if (sort === 'name') return rows.sort((a, b) => sign * byName(a, b));
  const values = sums[sort];
  return rows.sort((a, b) => sign * (values[a]! - values[b]!) || byName(a, b));
}

