// The profile on the page: the answer after search, filter and focus.
import { useMemo } from 'react';
import { filterStacks, findFocus, ROOT, search, sumFunctions, type FlameModel } from '../flamegraph';
import { parseType } from '../format/profile_type';
import type { ExploreState } from '../state/url';

export type Profile = ReturnType<typeof useProfile>;

/** `whole` is the answer; null before the first. */
export function useProfile(whole: FlameModel | null, state: ExploreState) {
  const matches = useMemo(() => (whole ? search(whole, state.search) : null), [whole, state.search]);
  const isFiltered = state.searchMode === 'filter' && matches !== null;
  const model = useMemo(() => (whole && isFiltered ? filterStacks(whole, matches!.marked) : whole), [whole, isFiltered, matches]);
  const sums = useMemo(() => (model ? sumFunctions(model) : null), [model]);
  const focused = useMemo(() => (model ? Math.max(ROOT, findFocus(model, state.focus)) : ROOT), [model, state.focus]);
  return { whole, matches, isFiltered, model, sums, focused, unit: parseType(state.query.type).sampleUnit };
}
