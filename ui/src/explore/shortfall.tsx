// Notices about incomplete answers: missing objects with reasons, staleness.
import type { Reply } from '../api/client';
import type { Report } from '../api/report';
import type { Answer } from '../api/use_answer';
import { counted, formatAge, formatCount } from '../format/units';
import { Icon } from '../parts/icon';
import { Popover } from '../parts/popover';
import controls from '../parts/controls.module.css';
import style from './shortfall.module.css';

type Gaps = Pick<Report, 'missing' | 'missingObjects' | 'stale'>;

/** The most missing objects and the highest age among several answers. */
export function worst(reports: readonly Report[]): Gaps {
  let all: Gaps = { missing: 0, missingObjects: [], stale: null };
  for (const { missing, missingObjects, stale } of reports) {
    if (missing > all.missing) all = { ...all, missing, missingObjects };
    if (stale !== null && stale >= (all.stale ?? 0)) all = { ...all, stale };
  }
  return all;
}

/** Empty if no object is missing. */
export function missingText(missing: number): string {
  if (missing === 0) return '';
  return `partial: ${counted(missing, 'object')} of this range cannot be read, ${missing === 1 ? 'its' : 'their'} profiles are missing`;
}

/** Empty if the answer is up to date. */
export function staleText(seconds: number | null): string {
  if (seconds === null) return '';
  return `stale: the catalog is ${formatAge(seconds * 1000)} behind; profiles stored since may be missing until it catches up`;
}

/** Empty if the answer is complete and up to date. */
function summary({ missing, stale }: Gaps, separator: string): string {
  const parts = [missing > 0 ? `partial: ${counted(missing, 'object')} missing` : '', stale === null ? '' : `stale: ${formatAge(stale * 1000)} old`];
  return parts.filter((part) => part !== '').join(separator);
}

interface ShortfallProps {
  reports: readonly Report[];
  onCopy: (text: string) => void;
  /** Opens the explanation, which names more missing objects. */
  onExplain: () => void;
}

/** Always one line inside an existing line, so that the layout does not move. */
export function Shortfall({ reports, onCopy, onExplain }: ShortfallProps) {
  const gaps = worst(reports);
  const { missing, missingObjects, stale } = gaps;
  if (summary(gaps, '') === '') return null;
  const text = [missingText(missing), staleText(stale)].filter((part) => part !== '').join('. ');
  return (
    <div className={style['root']}>
      <span role="alert" className="visually-hidden">
        {text}
      </span>
      <Popover
        align="right"
        label={summary(gaps, ', ')}
        hint="Missing objects and reasons"
        className={style['face']!}
        face={
          <>
            <Icon name="warning" />
            {summary(gaps, ' · ')}
            <Icon name="chevron" />
          </>
        }
      >
        {(close) => (
          <div className={style['details']}>
            <Details {...gaps} />
            <div className={style['actions']}>
              <button
                type="button"
                className={controls['plain']}
                onClick={() => {
                  close();
                  onExplain();
                }}
              >
                Query details
              </button>
              <button
                type="button"
                className={controls['plain']}
                onClick={() => {
                  onCopy([text, ...missingObjects.map(({ object, why }) => `${object}: ${why}`)].join('\n'));
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

/** The notice of a list of options; opens in place. */
export function ListShortfall({ answer: { value } }: { answer: Answer<Reply<unknown>> }) {
  if (value === null || summary(value.report, '') === '') return null;
  return (
    <details className={style['list']}>
      <summary>
        <Icon name="warning" />
        <span role="alert">{summary(value.report, ' · ')}</span>
        <Icon name="chevron" />
      </summary>
      <div className={style['details']}>
        <Details {...value.report} />
      </div>
    </details>
  );
}

/** Replaces the options of an empty list; `noneText` if the answer has none. */
export function emptyList({ value, error, loading }: Answer<unknown>, noneText: string): string {
  return error ? error.message : loading && value === null ? 'loading…' : noneText;
}

function Details({ missing, missingObjects, stale }: Gaps) {
  return (
    <>
      {missing > 0 && (
        <>
          <h2>{sentence(missingText(missing))}</h2>
          <dl>
            {missingObjects.map(({ object, why }) => (
              <div key={object}>
                <dt>{object}</dt>
                <dd>{why}</dd>
              </div>
            ))}
          </dl>
          {missing > missingObjects.length && <p>{missingObjects.length === 0 ? 'The server does not name them.' : `And ${formatCount(missing - missingObjects.length)} more.`}</p>}
        </>
      )}
      {stale !== null && <h2>{sentence(staleText(stale))}</h2>}
    </>
  );
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
