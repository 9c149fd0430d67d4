// Replacements of the graph: first run, no data in the range, a failed query, waiting.
import { useState } from 'react';
import { ApiError } from '../api/client';
import type { Stats } from '../api/queries';
import { formatAge } from '../format/units';
import { Icon } from '../parts/icon';
import { Segments } from '../parts/segments';
import controls from '../parts/controls.module.css';
import style from './empty.module.css';

/** Instructions to send a first profile, per language, with the address of this server. */
function setups(origin: string): { name: string; install: string; code: string }[] {
  return [
    {
      name: 'Python',
      install: 'pip install pyroscope-io',
      code: `import pyroscope

pyroscope.configure(
    application_name="my-app",
    server_address="${origin}",
)`,
    },
    {
      name: 'Go',
      install: 'go get github.com/grafana/pyroscope-go',
      code: `import "github.com/grafana/pyroscope-go"

pyroscope.Start(pyroscope.Config{
    ApplicationName: "my-app",
    ServerAddress:   "${origin}",
})`,
    },
    {
      name: 'curl',
      install: '',
      code: `printf 'main;handle;parse 30\\nmain;handle;render 12\\n' |
  curl --fail --data-binary @- \\
  '${origin}/ingest?name=my-app.cpu&from=now-10s&until=now'`,
    },
  ];
}

export function FirstRun({ onCopied }: { onCopied: (subject: string) => void }) {
  const all = setups(location.origin);
  const [name, setName] = useState(all[0]!.name);
  const setup = all.find((one) => one.name === name)!;
  const text = setup.install === '' ? setup.code : `${setup.install}\n\n${setup.code}`;
  return (
    <section className={style['center']} aria-label="First run">
      <div className={style['card']}>
        <h2 className={style['title']}>No profile has arrived yet</h2>
        <p className={style['lead']}>
          Point any Pyroscope SDK or agent at this server and its flame graph appears here, usually within 15 seconds.
        </p>
        <div className={style['row']}>
          <Segments label="Language" options={all.map((one) => ({ value: one.name, label: one.name }))} value={name} onChange={setName} />
          <button type="button" className={controls['icon']} onClick={() => void navigator.clipboard?.writeText(text).then(() => onCopied('set-up'))}>
            <Icon name="copy" />
            Copy
          </button>
        </div>
        {setup.install !== '' && <pre className={style['code']} tabIndex={0}>{setup.install}</pre>}
        <pre className={style['code']} tabIndex={0}>{setup.code}</pre>
        <p className={style['waiting']}>
          <span className={style['pulse']} /> Waiting for the first profile. This page updates by itself.
        </p>
      </div>
    </section>
  );
}

interface NoDataProps {
  range: { from: number; until: number };
  stats: Stats | null;
  hasFilters: boolean;
  service: string;
  /** Whether the range holds any profile. */
  hasOtherProfiles: boolean;
  onJump: () => void;
  onDropFilters: () => void;
  onWiden: () => void;
}

export function NoData(props: NoDataProps) {
  const { stats, range } = props;
  const newest = stats?.newest ?? null;
  const isNewestOutside = newest !== null && (newest < range.from || newest > range.until);
  return (
    <section className={style['center']} aria-label="No data">
      <div className={style['card']}>
        <h2 className={style['title']}>{props.hasOtherProfiles ? 'No matching profile in this range' : 'No data in this range'}</h2>
        <p className={style['lead']}>
          {props.hasOtherProfiles
            ? `The range holds other profiles, but none of ${props.service || 'this query'}${props.hasFilters ? ' with these labels' : ' with this type'}.`
            : newest === null
              ? 'The server does not report the time of its newest profile.'
              : `The newest profile was taken ${formatAge(Date.now() - newest)} ago.`}
        </p>
        <div className={style['row']}>
          {isNewestOutside && (
            <button type="button" className={controls['primary']} onClick={props.onJump}>
              Jump there
            </button>
          )}
          {props.hasFilters && (
            <button type="button" className={controls['plain']} onClick={props.onDropFilters}>
              Remove label filters
            </button>
          )}
          <button type="button" className={controls['plain']} onClick={props.onWiden}>
            Widen to the last 24 h
          </button>
        </div>
      </div>
    </section>
  );
}

const ADVICE: Record<string, string> = {
  invalid_argument: 'The server rejected the query. Correct the filter, type or range, then try again.',
  unauthenticated: 'This server has several tenants. Open the page through a proxy that sets X-Scope-OrgID.',
  permission_denied: 'You may not read this tenant.',
  resource_exhausted: 'The query exceeds a limit of this server. Choose a shorter range or narrower labels.',
  unavailable: 'The server is starting or overloaded. Try again in a moment.',
  deadline_exceeded: 'The answer took too long. Choose a shorter range or narrower labels.',
  unimplemented: 'The server is older than this page. Reload after the upgrade.',
};

const FAILURES: Record<string, string> = {
  SelectMergeStacktraces: 'The flame graph could not be loaded',
  Series: 'The services could not be loaded',
};

export function Failure({ error, onRetry, onCopy }: { error: Error; onRetry: () => void; onCopy: (text: string) => void }) {
  const api = error instanceof ApiError ? error : null;
  const advice =
    api?.status === 0
      ? 'Check that Pyrograph is running and reachable from this computer, then try again.'
      : (ADVICE[api?.code ?? ''] ?? 'Try again. If the error remains, search the server log for the request id.');
  const facts = api && [api.method, api.code, api.status > 0 ? `HTTP ${api.status}` : '', api.requestId === '' ? '' : `request ${api.requestId}`].filter((fact) => fact !== '').join(' · ');
  return (
    <section className={style['center']} role="alert">
      <div className={`${style['card']} ${style['failed']}`}>
        <h2 className={style['title']}>{(api && FAILURES[api.method]) ?? 'The page failed'}</h2>
        <pre className={style['code']} tabIndex={0}>{error.message || 'no message'}</pre>
        <p className={style['lead']}>{advice}</p>
        <div className={style['row']}>
          <button type="button" className={controls['primary']} onClick={onRetry}>
            Try again
          </button>
          {facts && (
            <button type="button" className={controls['icon']} onClick={() => onCopy(`${error.message}\n${facts}`)}>
              <Icon name="copy" />
              Copy
            </button>
          )}
        </div>
        {facts && <code className={style['request']}>{facts}</code>}
      </div>
    </section>
  );
}

export function NoRange({ from, until, onLastHour }: { from: string; until: string; onLastHour: () => void }) {
  return (
    <section className={style['center']} role="alert">
      <div className={`${style['card']} ${style['failed']}`}>
        <h2 className={style['title']}>The address has no valid time range</h2>
        <pre className={style['code']} tabIndex={0}>{`from “${from}” until “${until}”`}</pre>
        <p className={style['lead']}>Use now, now-1h or Unix milliseconds, earlier first.</p>
        <div className={style['row']}>
          <button type="button" className={controls['primary']} onClick={onLastHour}>
            Show the last hour
          </button>
        </div>
      </div>
    </section>
  );
}

/** Appears after a delay, so that fast answers do not flicker. */
export function Waiting({ text }: { text: string }) {
  return (
    <section className={`${style['center']} ${style['late']}`}>
      <p role="status" className={style['lead']}>
        {text}
      </p>
    </section>
  );
}
