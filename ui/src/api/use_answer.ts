// Answers with memory: the old one stays until the new one is here, and a late one is dropped.
import { useCallback, useEffect, useRef, useState } from 'react';

export interface Answer<T> {
  /** The newest answer, perhaps to an older question; null before the first. */
  value: T | null;
  /** The question that `value` answers. */
  key: string | null;
  error: Error | null;
  loading: boolean;
  retry: () => void;
}

const KEPT = 24;
const kept = new Map<string, unknown>();

/**
 * Asks whenever `key` changes; null asks nothing. Answers are remembered, so that going back is
 * immediate.
 */
export function useAnswer<T>(key: string | null, ask: (signal: AbortSignal) => Promise<T>): Answer<T> {
  const [answer, setAnswer] = useState<Omit<Answer<T>, 'retry'>>({ value: null, key: null, error: null, loading: key !== null });
  const [attempt, setAttempt] = useState(0);
  const asked = useRef(ask);
  asked.current = ask;
  useEffect(() => {
    if (key === null) {
      setAnswer((last) => (last.loading ? { ...last, loading: false } : last));
      return;
    }
    const known = kept.get(key) as T | undefined;
    if (known !== undefined) {
      setAnswer({ value: known, key, error: null, loading: false });
      return;
    }
    const abort = new AbortController();
    setAnswer((last) => ({ ...last, loading: true }));
    asked.current(abort.signal).then(
      (value) => {
        if (abort.signal.aborted) return;
        remember(key, value);
        setAnswer({ value, key, error: null, loading: false });
      },
      (error: unknown) => {
        if (abort.signal.aborted) return;
        setAnswer((last) => ({ ...last, error: error instanceof Error ? error : new Error(String(error)), loading: false }));
      },
    );
    return () => abort.abort();
  }, [key, attempt]);
  const retry = useCallback(() => setAttempt((last) => last + 1), []);
  return { ...answer, retry };
}

function remember(key: string, value: unknown): void {
  kept.delete(key);
  kept.set(key, value);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value!);
}
