// The top bar: service, profile type, filters, time range, refresh, link, theme, keys.
import type { Reply } from '../api/client';
import type { Answer } from '../api/use_answer';
import { preferredType, typeLabel } from '../format/profile_type';
import { Hint } from '../parts/hint';
import { Icon, Mark } from '../parts/icon';
import { OptionList } from '../parts/option_list';
import { Popover } from '../parts/popover';
import { serviceOf, withFilters, withService } from '../state/query';
import type { Range } from '../state/time';
import { writeState, type ExploreState } from '../state/url';
import type { Change } from '../state/use_url_state';
import { toggleTheme, useTheme } from '../theme';
import controls from '../parts/controls.module.css';
import { Filters } from './filters';
import { emptyList, ListShortfall } from './shortfall';
import { Refresh, TimePicker } from './time_picker';
import style from './top_bar.module.css';

interface TopBarProps {
  state: ExploreState;
  /** Null when the address holds no range. */
  range: Range | null;
  /** Services of the range with their profile types. */
  services: Answer<Reply<Map<string, string[]>>>;
  loading: boolean;
  onChange: Change;
  onRefresh: () => void;
  onCopyLink: (link: string) => void;
  onHelp: () => void;
}

export function TopBar(props: TopBarProps) {
  const { state, range, services, loading, onChange: change } = props;
  const { query } = state;
  const service = serviceOf(query);
  const theme = useTheme();
  const typesByService = services.value?.body ?? new Map<string, string[]>();
  const serviceOptions = [...typesByService].map(([value, types]) => ({ value, label: value, detail: types.map(typeLabel).join(', ') }));
  const types = service === null ? [...new Set([...typesByService.values()].flat())].sort() : (typesByService.get(service) ?? []);
  return (
    <header className={style['bar']}>
      <h1 className="visually-hidden">Explore profiles</h1>
      <a className={style['brand']} href="/explore" aria-label="Pyrograph, start over">
        <span className={style['mark']}>
          <Mark />
        </span>
        <span className={style['word']}>Pyrograph</span>
      </a>
      <Popover shrinks="first" label={`Service: ${service ?? 'any'}`} hint={service ?? 'Service'} className={style['picker']!} face={<><span className={style['strong']}>{service ?? (query.type === '' ? 'Service' : 'any service')}</span><Icon name="chevron" /></>}>
        {(close) => (
          <OptionList
            label="Find a service"
            options={serviceOptions}
            chosen={service ?? ''}
            empty={emptyList(services, 'no service in this range')}
            notice={<ListShortfall answer={services} />}
            onPick={(name) => {
              const offered = typesByService.get(name) ?? [];
              const type = offered.includes(query.type) ? query.type : preferredType(offered);
              change({ query: { ...withFilters(withService(query, name), []), type }, focus: '', select: '' });
              close();
            }}
          />
        )}
      </Popover>
      <Popover label={`Profile type: ${typeLabel(query.type)}`} hint={query.type} className={style['picker']!} face={<>{typeLabel(query.type)}<Icon name="chevron" /></>}>
        {(close) => (
          <OptionList
            label="Find a profile type"
            options={types.map((value) => ({ value, label: typeLabel(value), detail: value }))}
            chosen={query.type}
            empty={emptyList(services, 'no profile type in this range')}
            notice={<ListShortfall answer={services} />}
            onPick={(type) => {
              change({ query: { ...query, type }, focus: '', select: '' });
              close();
            }}
          />
        )}
      </Popover>
      {range && <Filters query={query} range={range} onChange={(next) => change({ query: next })} />}
      <span className={style['gap']} />
      <TimePicker from={state.from} until={state.until} onChange={(from, until) => (from === state.from && until === state.until ? props.onRefresh() : change({ from, until }))} />
      <Refresh interval={state.refresh} loading={loading} onInterval={(interval) => change({ refresh: interval }, 'replace')} onRefresh={props.onRefresh} />
      <Hint text="Copy a link with fixed times">
        <button
          type="button"
          className={controls['icon']}
          aria-label="Copy a link with fixed times"
          onClick={() => range && props.onCopyLink(`${location.origin}/explore${writeState(withFixedTimes(state, range))}`)}
        >
          <Icon name="link" />
        </button>
      </Hint>
      <Hint text="Theme (t)">
        <button type="button" className={controls['icon']} aria-label={theme === 'dark' ? 'Light theme' : 'Dark theme'} onClick={toggleTheme}>
          <Icon name={theme === 'dark' ? 'sun' : 'moon'} />
        </button>
      </Hint>
      <Hint text="Keys (?)">
        <button type="button" className={controls['icon']} aria-label="Keys" onClick={props.onHelp}>
          <Icon name="help" />
        </button>
      </Hint>
      <div className={`${style['progress']} ${loading ? style['running'] : ''}`} role="progressbar" aria-label="Loading" aria-hidden={!loading} />
    </header>
  );
}

function withFixedTimes(state: ExploreState, { from, until }: Range): ExploreState {
  return { ...state, from: String(Math.floor(from)), until: String(Math.ceil(until)), refresh: '' };
}
