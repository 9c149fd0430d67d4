// What stands above everything else when an answer is not whole: what it lacks and why, or how old it is.
import type { Report } from '../api/report';
import { formatAge } from '../format/units';
import { Icon } from '../parts/icon';
import style from './banner.module.css';
import { lack } from './status_line';

/** Of several answers on one page, the most that one lacks and the oldest age. */
export function worst(reports: readonly Report[]): Pick<Report, 'missing' | 'why' | 'stale'> {
  let all: Pick<Report, 'missing' | 'why' | 'stale'> = { missing: 0, why: [], stale: null };
  for (const { missing, why, stale } of reports) {
    if (missing > all.missing) all = { ...all, missing, why };
    if (stale !== null && stale >= (all.stale ?? 0)) all = { ...all, stale };
  }
  return all;
}

/** Empty when the answer is of what the catalog says now. */
export function staleness(seconds: number | null): string {
  if (seconds === null) return '';
  return `stale: as of ${formatAge(seconds * 1000)} before the answer; the catalog could not follow since, newer profiles may be missing`;
}

/** Takes no room when the answers are whole. */
export function Banner({ reports }: { reports: readonly Report[] }) {
  const { missing, why, stale } = worst(reports);
  return (
    <div>
      {missing > 0 && (
        <div role="alert" className={style['root']}>
          <Icon name="warning" />
          <div className={style['text']}>
            <strong>{lack(missing)}</strong>
            {why.length > 0 && (
              <ul>
                {why.map(({ object, why: reason }) => (
                  <li key={object}>
                    <code>{object}</code>: {reason}
                  </li>
                ))}
              </ul>
            )}
          </div>
        </div>
      )}
      {stale !== null && (
        <div role="alert" className={style['root']}>
          <Icon name="warning" />
          <strong className={style['text']}>{staleness(stale)}</strong>
        </div>
      )}
    </div>
  );
}
