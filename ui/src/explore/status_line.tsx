// The status line: content and cost of the answer.
import { useEffect, useState } from 'react';
import type { Report } from '../api/report';
import { counted, formatAge, formatBytes, formatElapsed } from '../format/units';
import { Hint, Term } from '../parts/hint';
import { Icon } from '../parts/icon';
import { missingText } from './shortfall';
import style from './status_line.module.css';

export interface Cost {
  milliseconds: number;
  bytes: number;
  report: Report;
}

/** Amount of data, time and bytes; as reported by the server, or else as measured by the page. */
export function costParts({ milliseconds, bytes, report: { read } }: Cost): string[] {
  if (read === null) return [`${formatElapsed(milliseconds)}, ${formatBytes(bytes)} answer`];
  return [
    // Some answers need only the tree of names, and read no sample.
    `${counted(read.profiles, 'profile')}${read.samples === 0 ? '' : `, ${counted(read.samples, 'sample')}`}`,
    `${formatElapsed(milliseconds)}, ${formatBytes(read.bytes)} read from ${counted(read.objects, 'object')}`,
  ];
}

interface StatusLineProps {
  /** A short message that disappears by itself. */
  note: string;
  facts: readonly string[];
  cost: Cost | null;
  /** Number of objects that could not be read. */
  missing: number;
  /** Seconds per column of the time series. */
  step: number | null;
  loading: boolean;
  /** The error of the last refresh; empty if it succeeded. */
  error: string;
  /** Id of the panel that a click on the cost opens. */
  panel: string;
  isExplained: boolean;
  onExplain: () => void;
}

export function StatusLine({ note, facts, cost, missing, step, loading, error, panel, isExplained, onExplain }: StatusLineProps) {
  const [answeredAt, setAnsweredAt] = useState(Date.now());
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    setAnsweredAt(Date.now());
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
        {facts.length > 0 && step !== null && <span>{formatAge(step * 1000)} columns</span>}
        {cost && facts.length > 0 && !loading && <span>{now - answeredAt < 5000 ? 'just now' : `${formatAge(now - answeredAt)} ago`}</span>}
      </span>
      {cost && (
        <Hint text="Query details (e)">
          <button type="button" className={style['cost']} aria-expanded={isExplained} aria-controls={isExplained ? panel : undefined} onClick={onExplain}>
            {costParts(cost).join(' · ')}
          </button>
        </Hint>
      )}
      {missing > 0 && (
        <span className={style['partial']}>
          <Icon name="warning" />
          <Term hint={missingText(missing)}>partial</Term>
        </span>
      )}
      {error !== '' && (
        <Term className={style['error']} hint={error}>
          refresh failed: {error}
        </Term>
      )}
      <span role="status" className={style['note']}>
        {note}
      </span>
    </footer>
  );
}
