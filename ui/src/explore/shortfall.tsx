// What stands out when an answer is not whole: what it lacks and why, or how old it is.
import type { Reply } from '../api/client';
import type { Report } from '../api/report';
import type { Answer } from '../api/use_answer';
import { counted, formatAge, formatCount } from '../format/units';
import { Icon } from '../parts/icon';
import { Popover } from '../parts/popover';
import controls from '../parts/controls.module.css';
import style from './shortfall.module.css';

type Lacking = Pick<Report, 'missing' | 'why' | 'stale'>;

/** Of several answers on one page, the most that one lacks and the oldest age. */
export function worst(reports: readonly Report[]): Lacking {
  let all: Lacking = { missing: 0, why: [], stale: null };
  for (const { missing, why, stale } of reports) {
    if (missing > all.missing) all = { ...all, missing, why };
    if (stale !== null && stale >= (all.stale ?? 0)) all = { ...all, stale };
  }
  return all;
}

/** Empty when nothing is missing. */
export function lack(missing: number): string {
  if (missing === 0) return '';
  return `partial: ${counted(missing, 'object')} of this range cannot be read, ${missing === 1 ? 'its' : 'their'} profiles are missing`;
}

/** Empty when the answer is of what the catalog says now. */
export function staleness(seconds: number | null): string {
  if (seconds === null) return '';
  return `stale: the answer is of what was known ${formatAge(seconds * 1000)} before it; profiles stored since may be missing, until the catalog can follow again`;
}

/** Empty when the answer is whole. */
function brief({ missing, stale }: Lacking, separator: string): string {
  const parts = [missing > 0 ? `partial: ${counted(missing, 'object')} missing` : '', stale === null ? '' : `stale: ${formatAge(stale * 1000)} old`];
  return parts.filter((part) => part !== '').join(separator);
}

interface ShortfallProps {
  reports: readonly Report[];
  onCopy: (text: string) => void;
  /** Shows how the answers came about, which names more of what is missing. */
  onExplain: () => void;
}

/** One line high, whatever it says: it stands in a line that is there anyway, so that nothing moves. */
export function Shortfall({ reports, onCopy, onExplain }: ShortfallProps) {
  const lacking = worst(reports);
  const { missing, why, stale } = lacking;
  if (brief(lacking, '') === '') return null;
  const whole = [lack(missing), staleness(stale)].filter((part) => part !== '').join('. ');
  return (
    <div className={style['root']}>
      <span role="alert" className="visually-hidden">
        {whole}
      </span>
      <Popover
        align="right"
        label={brief(lacking, ', ')}
        hint="What is missing, and why"
        className={style['face']!}
        face={
          <>
            <Icon name="warning" />
            {brief(lacking, ' · ')}
            <Icon name="chevron" />
          </>
        }
      >
        {(close) => (
          <div className={style['details']}>
            <Details {...lacking} />
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

/** The same of a list to pick from, in which something may be absent; opens in place. */
export function ListShortfall({ answer: { value } }: { answer: Answer<Reply<unknown>> }) {
  if (value === null || brief(value.report, '') === '') return null;
  return (
    <details className={style['list']}>
      <summary>
        <Icon name="warning" />
        <span role="alert">{brief(value.report, ' · ')}</span>
        <Icon name="chevron" />
      </summary>
      <div className={style['details']}>
        <Details {...value.report} />
      </div>
    </details>
  );
}

/** What stands where the options of a list would be; `otherwise` if the answer is that there are none. */
export function emptyList({ value, error, loading }: Answer<unknown>, otherwise: string): string {
  return error ? error.message : loading && value === null ? 'loading…' : otherwise;
}

function Details({ missing, why, stale }: Lacking) {
  return (
    <>
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
    </>
  );
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
