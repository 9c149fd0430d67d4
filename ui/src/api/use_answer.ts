// Answers as React state, with a cache.
//
// An answer stays until the next one arrives. An answer to a superseded query is dropped.
import { useCallback, useEffect, useRef, useState } from 'react';

export interface Answer<T> {
  /** The latest answer, possibly to an earlier query; null before the first. */
  value: T | null;
  /** The answer to the same query that `isEnough` rejected before; null if there was none. */
  first: T | null;
  /** The query that `value` answers. */
  key: string | null;
  error: Error | null;
  loading: boolean;
  /** Asks again without the cache. */
  repeat: () => void;
}

const CACHE_MAX = 24;
const cache = new Map<string, unknown>();

/**
 * Asks whenever `key` changes; null asks nothing. Answers are cached, so that going back is immediate.
 * A cached answer that `isEnough` rejects is requested again and stays until the new one arrives.
 */
export function useAnswer<T>(
  key: string | null,
  ask: (signal: AbortSignal) => Promise<T>,
  isEnough: (value: T) => boolean = () => true,
): Answer<T> {
  const [answer, setAnswer] = useState<Omit<Answer<T>, 'repeat'>>({ value: null, first: null, key: null, error: null, loading: key !== null });
  const [attempt, setAttempt] = useState(0);
  const latestAsk = useRef(ask);
  latestAsk.current = ask;
  const cached = key === null ? undefined : (cache.get(key) as T | undefined);
  const usable = cached !== undefined && isEnough(cached) ? cached : undefined;
  // The cache may have evicted the answer that is on the page.
  const shown = cached ?? (answer.key === key ? answer.value : null);
  const isRejected = shown !== null && !isEnough(shown);
  useEffect(() => {
    if (key === null) {
      setAnswer((last) => (last.loading ? { ...last, loading: false } : last));
      return;
    }
    if (usable !== undefined) {
      remember(key, usable);
      setAnswer((last) => ({ value: usable, first: last.key === key ? last.first : null, key, error: null, loading: false }));
      return;
    }
    const abort = new AbortController();
    setAnswer((last) => ({ ...last, loading: true }));
    latestAsk.current(abort.signal).then(
      (value) => {
        if (abort.signal.aborted) return;
        remember(key, value);
        setAnswer({ value, first: isRejected ? shown : null, key, error: null, loading: false });
      },
      (error: unknown) => {
        if (abort.signal.aborted) return;
        setAnswer((last) => ({ ...last, error: error instanceof Error ? error : new Error(String(error)), loading: false }));
      },
    );
    return () => abort.abort();
  }, [key, attempt, isRejected]);
  const repeat = useCallback(() => {
    if (key !== null) cache.delete(key);
    setAttempt((last) => last + 1);
  }, [key]);
  return { ...answer, repeat };
}

function remember(key: string, value: unknown): void {
  cache.delete(key);
  cache.set(key, value);
  if (cache.size > CACHE_MAX) cache.delete(cache.keys().next().value!);
}
