// Answers with memory: the old one stays until the new one is here, and a late one is dropped.
import { useCallback, useEffect, useRef, useState } from 'react';

export interface Answer<T> {
  /** The newest answer, perhaps to an older question; null before the first. */
  value: T | null;
  /** Of the same question, the one before that was not enough; null if there was none. */
  first: T | null;
  /** The question that `value` answers. */
  key: string | null;
  error: Error | null;
  loading: boolean;
  /** Asks once more, whatever is remembered. */
  again: () => void;
}

const KEPT = 24;
const kept = new Map<string, unknown>();

/**
 * Asks whenever `key` changes; null asks nothing. Answers are remembered, so that going back is
 * immediate. One that is not enough is asked for again, and stays meanwhile.
 */
export function useAnswer<T>(
  key: string | null,
  ask: (signal: AbortSignal) => Promise<T>,
  isEnough: (value: T) => boolean = () => true,
): Answer<T> {
  const [answer, setAnswer] = useState<Omit<Answer<T>, 'again'>>({ value: null, first: null, key: null, error: null, loading: key !== null });
  const [attempt, setAttempt] = useState(0);
  const asked = useRef(ask);
  asked.current = ask;
  const known = key === null ? undefined : (kept.get(key) as T | undefined);
  const usable = known !== undefined && isEnough(known) ? known : undefined;
  // What is shown may be remembered no more.
  const shown = known ?? (answer.key === key ? answer.value : null);
  const lacks = shown !== null && !isEnough(shown);
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
    asked.current(abort.signal).then(
      (value) => {
        if (abort.signal.aborted) return;
        remember(key, value);
        setAnswer({ value, first: lacks ? shown : null, key, error: null, loading: false });
      },
      (error: unknown) => {
        if (abort.signal.aborted) return;
        setAnswer((last) => ({ ...last, error: error instanceof Error ? error : new Error(String(error)), loading: false }));
      },
    );
    return () => abort.abort();
  }, [key, attempt, lacks]);
  const again = useCallback(() => {
    if (key !== null) kept.delete(key);
    setAttempt((last) => last + 1);
  }, [key]);
  return { ...answer, again };
}

function remember(key: string, value: unknown): void {
  kept.delete(key);
  kept.set(key, value);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value!);
}
