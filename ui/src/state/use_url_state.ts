// The address as React state. The page changes it only through `Change`.
import { useCallback, useMemo, useSyncExternalStore } from 'react';
import { readState, writeState, type ExploreState } from './url';

/** `push` adds an entry to the history, `replace` does not. */
export type Change = (part: Partial<ExploreState>, how?: 'push' | 'replace') => void;

const CHANGED = 'pyrograph:address';

export function useUrlState(): [ExploreState, Change] {
  const address = useSyncExternalStore(subscribe, () => location.search);
  const state = useMemo(() => readState(address), [address]);
  const change = useCallback<Change>((part, how = 'push') => {
    const next = `/explore${writeState({ ...readState(location.search), ...part })}`;
    if (next === location.pathname + location.search) return;
    history[how === 'push' ? 'pushState' : 'replaceState'](null, '', next);
    window.dispatchEvent(new Event(CHANGED));
  }, []);
  return [state, change];
}

function subscribe(changed: () => void): () => void {
  window.addEventListener('popstate', changed);
  window.addEventListener(CHANGED, changed);
  return () => {
    window.removeEventListener('popstate', changed);
    window.removeEventListener(CHANGED, changed);
  };
}
