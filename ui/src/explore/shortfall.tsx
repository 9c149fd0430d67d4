// What stands out when an answer is not whole: what it lacks and why, or how old it is.
import type { Report } from '../api/report';
import { formatAge, formatCount } from '../format/units';
import { Icon } from '../parts/icon';
import { Popover } from '../parts/popover';
import controls from '../parts/controls.module.css';
import style from './shortfall.module.css';
import { counted, lack } from './status_line';

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
  return `stale: the answer is of what was known ${formatAge(seconds * 1000)} before it; profiles stored since may be missing, until the catalog can follow again`;
}

interface ShortfallProps {
  reports: readonly Report[];
  onCopy: (text: string) => void;
  /** Shows how the answers came about, which names more of what is missing. */
  onExplain: () => void;
}

/** One line high, whatever it says: it stands in a line that is there anyway, so that nothing moves. */
export function Shortfall({ reports, onCopy, onExplain }: ShortfallProps) {
  const { missing, why, stale } = worst(reports);
  if (missing === 0 && stale === null) return null;
  const whole = [lack(missing), staleness(stale)].filter((part) => part !== '').join('. ');
  const brief = [missing > 0 ? `partial: ${counted(missing, 'object')} missing` : '', stale === null ? '' : `stale: ${formatAge(stale * 1000)} old`].filter((part) => part !== '');
  return (
    <div className={style['root']}>
      <span role="alert" className="visually-hidden">
        {whole}
      </span>
      <Popover
        align="right"
        label={brief.join(', ')}
        title="What is missing, and why"
        className={style['face']!}
        face={
          <>
            <Icon name="warning" />
            {brief.join(' · ')}
            <Icon name="chevron" />
          </>
        }
      >
        {(close) => (
          <div className={style['details']}>
            {missing > 0 && (
              <>
                <h2>{sentence(lack(missing))}</h2>
                <dl>
                  {why.map((one) => (
                    <div key={one.object}>
                      <dt>{one.object}</dt>
                      <dd>{one.why}</dd>
                    </div>
                  ))}
                </dl>
                {missing > why.length && <p>{why.length === 0 ? 'The server does not say which.' : `And ${formatCount(missing - why.length)} more.`}</p>}
              </>
            )}
            {stale !== null && <h2>{sentence(staleness(stale))}</h2>}
            <div className={style['actions']}>
              <button
                type="button"
                className={controls['plain']}
                onClick={() => {
                  close();
                  onExplain();
                }}
              >
                How the answers came about
              </button>
              <button
                type="button"
                className={controls['plain']}
                onClick={() => {
                  onCopy([whole, ...why.map((one) => `${one.object}: ${one.why}`)].join('\n'));
                  close();
                }}
              >
                Copy
              </button>
            </div>
          </div>
        )}
      </Popover>
    </div>
  );
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
