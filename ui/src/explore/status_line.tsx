// One line that says what the answer is made of and what it cost.
import { useEffect, useState } from 'react';
import { formatAge, formatBytes, formatElapsed } from '../format/units';
import style from './status_line.module.css';

interface StatusLineProps {
  /** A short message that replaces nothing and soon goes. */
  note: string;
  facts: readonly string[];
  cost: { milliseconds: number; bytes: number } | null;
  /** Seconds per column of the time series. */
  step: number | null;
  loading: boolean;
  /** Why what is shown is not the newest; empty when it is. */
  error: string;
}

export function StatusLine({ note, facts, cost, step, loading, error }: StatusLineProps) {
  const [answered, setAnswered] = useState(Date.now());
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    setAnswered(Date.now());
    setNow(Date.now());
  }, [cost]);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 5000);
    return () => clearInterval(timer);
  }, []);
  return (
    <footer className={style['root']}>
      <span className={style['facts']}>
        {facts.map((fact) => (
          <span key={fact}>{fact}</span>
        ))}
        {cost && facts.length > 0 && (
          <span>
            {formatElapsed(cost.milliseconds)}, {formatBytes(cost.bytes)} answer
            {step !== null && `, ${formatAge(step * 1000)} columns`}
          </span>
        )}
        {cost && facts.length > 0 && !loading && <span>{now - answered < 5000 ? 'just now' : `${formatAge(now - answered)} ago`}</span>}
      </span>
      {error !== '' && <span className={style['error']}>not the newest: {error}</span>}
      <span role="status" className={style['note']}>
        {note}
      </span>
    </footer>
  );
}
