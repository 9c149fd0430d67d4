// The label matchers of the query as pills, each with an editor.
import { useId, useState } from 'react';
import { askLabelNames, askLabelValues } from '../api/queries';
import { useAnswer } from '../api/use_answer';
import { Icon } from '../parts/icon';
import { narrow, Options } from '../parts/option_list';
import { Popover } from '../parts/popover';
import { filtersOf, formatMatcher, formatSelector, OPERATORS, withFilters, type Matcher, type Operator, type Query } from '../state/query';
import type { Range } from '../state/time';
import controls from '../parts/controls.module.css';
import { emptyList, ListShortfall } from './shortfall';
import style from './filters.module.css';

interface FiltersProps {
  query: Query;
  range: Range;
  onChange: (query: Query) => void;
}

export function Filters({ query, range, onChange }: FiltersProps) {
  const filters = filtersOf(query);
  const replace = (index: number, matcher: Matcher | null): void => {
    const next = [...filters];
    if (matcher) next[index] = matcher;
    else next.splice(index, 1);
    onChange(withFilters(query, next));
  };
  return (
    <div className={style['root']} role="group" aria-label="Label filters">
      {filters.map((matcher, index) => (
        <span key={`${index} ${formatMatcher(matcher)}`} className={style['pill']}>
          <Popover
            label={`Edit filter ${formatMatcher(matcher)}`}
            className={style['pillButton']!}
            face={<code className={style['code']}>{formatMatcher(matcher)}</code>}
          >
            {(close) => (
              <Editor
                query={withFilters(query, filters.filter((_, other) => other !== index))}
                range={range}
                matcher={matcher}
                onDone={(edited) => {
                  close();
                  replace(index, edited);
                }}
              />
            )}
          </Popover>
          <button type="button" className={style['remove']} aria-label={`Remove filter ${formatMatcher(matcher)}`} onClick={() => replace(index, null)}>
            <Icon name="close" />
          </button>
        </span>
      ))}
      <Popover
        label="Add a label filter"
        hint="Add a label filter"
        face={
          <>
            <Icon name="plus" />
            {filters.length === 0 && <span className={style['hint']}>filter</span>}
          </>
        }
      >
        {(close) => (
          <Editor
            query={query}
            range={range}
            matcher={{ name: '', operator: '=', value: '' }}
            onDone={(matcher) => {
              close();
              if (matcher) replace(filters.length, matcher);
            }}
          />
        )}
      </Popover>
    </div>
  );
}

interface EditorProps {
  /** The rest of the query; limits the suggestions. */
  query: Query;
  range: Range;
  matcher: Matcher;
  onDone: (matcher: Matcher | null) => void;
}

function Editor({ query, range, matcher, onDone }: EditorProps) {
  const [draft, setDraft] = useState(matcher);
  const [field, setField] = useState<'name' | 'value'>(matcher.name === '' ? 'name' : 'value');
  const [active, setActive] = useState(-1);
  const list = useId();
  const scope = `${query.type} ${formatSelector(query.matchers)} ${range.from} ${range.until}`;
  const names = useAnswer(`label names ${scope}`, (signal) => askLabelNames(query.type, query.matchers, range, signal));
  const values = useAnswer(field === 'value' && draft.name !== '' ? `label values ${draft.name} ${scope}` : null, (signal) =>
    askLabelValues(draft.name, query.type, query.matchers, range, signal),
  );
  const answer = field === 'name' ? names : values;
  const text = field === 'name' ? draft.name : draft.value;
  const isUnchanged = text === (field === 'name' ? matcher.name : matcher.value);
  const options = (answer.value?.body ?? []).map((value) => ({ value, label: value === '' ? '(empty)' : value }));
  const shown = narrow(options, isUnchanged ? '' : text);
  const isComplete = draft.name.trim() !== '';

  const pick = (value: string): void => {
    setActive(-1);
    if (field === 'name') {
      setDraft({ ...draft, name: value });
      setField('value');
      document.getElementById(`${list}-value`)?.focus();
    } else onDone({ ...draft, value });
  };
  const keyDown = (event: React.KeyboardEvent): void => {
    const offset = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
    if (offset !== 0) {
      event.preventDefault();
      setActive(Math.max(-1, Math.min(shown.length - 1, active + offset)));
    } else if (event.key === 'Enter') {
      event.preventDefault();
      if (shown[active]) pick(shown[active].value);
      else if (field === 'name' && isComplete) {
        setField('value');
        document.getElementById(`${list}-value`)?.focus();
      } else if (isComplete) onDone(draft);
    }
  };
  const input = (part: 'name' | 'value', label: string) => (
    <input
      id={`${list}-${part}`}
      className={style['input']}
      role="combobox"
      aria-label={label}
      aria-expanded={field === part}
      aria-controls={`${list}-list`}
      aria-activedescendant={field === part && active >= 0 ? `${list}-list-${active}` : undefined}
      placeholder={label}
      spellCheck={false}
      autoFocus={field === part}
      value={draft[part]}
      onFocus={() => {
        setField(part);
        setActive(-1);
      }}
      onChange={(event) => {
        setDraft({ ...draft, [part]: event.target.value });
        setActive(-1);
      }}
      onKeyDown={keyDown}
    />
  );

  return (
    <div className={style['editor']}>
      <ListShortfall answer={answer} />
      <div className={style['fields']}>
        {input('name', 'label')}
        <select
          className={style['operator']}
          aria-label="comparison"
          value={draft.operator}
          onChange={(event) => setDraft({ ...draft, operator: event.target.value as Operator })}
        >
          {OPERATORS.map((operator) => (
            <option key={operator}>{operator}</option>
          ))}
        </select>
        {input('value', 'value')}
        <button type="button" className={controls['primary']} disabled={!isComplete} onClick={() => onDone(draft)}>
          Apply
        </button>
      </div>
      <Options id={`${list}-list`} label={field === 'name' ? 'Label names' : `Values of ${draft.name}`} shown={shown} active={active} onPick={pick} />
      {shown.length === 0 && (
        <p className={style['note']}>
          {emptyList(answer, field === 'name' ? 'no such label in this range' : 'no known value; any text is fine')}
        </p>
      )}
    </div>
  );
}
