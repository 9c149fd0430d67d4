// A text field that filters a list of options: the content of every picker.
import { useEffect, useId, useMemo, useRef, useState, type ReactNode } from 'react';
import { Icon } from './icon';
import style from './option_list.module.css';

export interface Option {
  value: string;
  label: string;
  /** Second line, muted. */
  detail?: string;
}

/** Maximum number of visible options; typing finds the others. */
const SHOWN_MAX = 200;

export interface OptionListProps {
  label: string;
  options: readonly Option[];
  /** Value of the current choice. */
  chosen?: string;
  onPick: (value: string) => void;
  empty?: string;
  /** Above the options. */
  notice?: ReactNode;
}

export function OptionList({ label, options, chosen, onPick, empty = 'nothing here', notice }: OptionListProps) {
  const [text, setText] = useState('');
  const shown = useMemo(() => narrow(options, text), [options, text]);
  const [active, setActive] = useState(() => Math.max(0, options.findIndex((option) => option.value === chosen)));
  const list = useId();
  const rows = useRef<HTMLUListElement>(null);

  useEffect(() => {
    rows.current?.children[active]?.scrollIntoView({ block: 'nearest' });
  }, [active]);

  return (
    <div className={style['root']}>
      <input
        autoFocus
        className={style['input']}
        role="combobox"
        aria-label={label}
        aria-expanded="true"
        aria-controls={list}
        aria-activedescendant={shown[active] ? `${list}-${active}` : undefined}
        aria-autocomplete="list"
        placeholder={label}
        spellCheck={false}
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          setActive(0);
        }}
        onKeyDown={(event) => {
          const offset = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
          if (offset !== 0) {
            event.preventDefault();
            setActive((last) => Math.max(0, Math.min(shown.length - 1, last + offset)));
          } else if (event.key === 'Enter' && shown[active]) {
            event.preventDefault();
            onPick(shown[active].value);
          }
        }}
      />
      {notice}
      <Options id={list} label={label} ref={rows} shown={shown} active={active} chosen={chosen} onPick={onPick} />
      {shown.length === 0 && <p className={style['empty']}>{text === '' ? empty : `no match for “${text}”`}</p>}
    </div>
  );
}

export interface OptionsProps {
  id: string;
  label: string;
  shown: readonly Option[];
  active: number;
  chosen?: string | undefined;
  onPick: (value: string) => void;
  ref?: React.Ref<HTMLUListElement>;
}

export function Options({ id, label, shown, active, chosen, onPick, ref }: OptionsProps) {
  return (
    <ul id={id} ref={ref} role="listbox" aria-label={label} className={style['list']}>
      {shown.map((option, index) => (
        <li
          key={option.value}
          id={`${id}-${index}`}
          role="option"
          aria-selected={option.value === chosen}
          className={`${style['option']} ${index === active ? style['active'] : ''}`}
          onPointerDown={(event) => event.preventDefault()}
          onClick={() => onPick(option.value)}
        >
          <span className={style['mark']}>{option.value === chosen && <Icon name="check" />}</span>
          <span className={style['text']}>
            {option.label}
            {option.detail !== undefined && <span className={style['detail']}>{option.detail}</span>}
          </span>
        </li>
      ))}
    </ul>
  );
}

/** The options that contain the text, those that begin with it first. */
export function narrow(options: readonly Option[], text: string): Option[] {
  const wanted = text.trim().toLowerCase();
  if (wanted === '') return options.slice(0, SHOWN_MAX);
  const found = options.filter((option) => `${option.label} ${option.detail ?? ''}`.toLowerCase().includes(wanted));
  const begins = (option: Option): number => (option.label.toLowerCase().startsWith(wanted) ? 0 : 1);
  return found.sort((a, b) => begins(a) - begins(b)).slice(0, SHOWN_MAX);
}
