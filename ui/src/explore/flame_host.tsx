// The flame graph as a React component: canvas, tooltip, menu and announcements for screen readers.
import { useEffect, useImperativeHandle, useMemo, useRef, useState } from 'react';
import {
  colour,
  FlameView,
  findFocus,
  focusKey,
  FOLDED_NAME,
  nameOf,
  parseColour,
  ROOT,
  type Colouring,
  type FlameModel,
  type FlameOptions,
  type SearchResult,
  type Step,
} from '../flamegraph';
import { formatPercent, formatValue } from '../format/units';
import { Icon } from '../parts/icon';
import { token, useTheme } from '../theme';
import style from './flame_host.module.css';

export interface FlameHandle {
  step: (step: Step) => void;
  /** The bar that keys act on. */
  current: () => number;
  dropCursor: () => void;
  /** Resets the cursor and a manual zoom. */
  home: () => void;
  image: () => Promise<Blob | null>;
}

interface FlameHostProps {
  model: FlameModel;
  unit: string;
  /** Bar that fills the width. */
  focused: number;
  colouring: Colouring;
  search: SearchResult | null;
  selected: string;
  ref: React.Ref<FlameHandle>;
  onFocus: (bar: number) => void;
  onSelect: (bar: number) => void;
  onCopy: (bar: number) => void;
  /** Asks for more bars, on a click on the folded bar. Null at the maximum of the server. */
  onRefine: (() => void) | null;
}

export function FlameHost(props: FlameHostProps) {
  const { model, unit, focused } = props;
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<FlameView | null>(null);
  const shown = useRef<FlameModel | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const [hover, setHover] = useState<{ bar: number; x: number; y: number } | null>(null);
  const [menu, setMenu] = useState<{ bar: number; x: number; y: number } | null>(null);
  const [announcement, setAnnouncement] = useState('');
  const theme = useTheme();
  const options = useMemo<FlameOptions>(
    () => ({
      paint: {
        dark: theme === 'dark',
        font: `12px ${token('--font-mono')}`,
        muted: colour(parseColour(token('--flame-muted'))),
        ground: token('--ground'),
        accent: token('--accent'),
        text: token('--text'),
      },
      colouring: props.colouring,
      formatValue: (value) => formatValue(value, unit),
    }),
    [theme, props.colouring, unit],
  );

  useEffect(() => {
    const created = new FlameView(host.current!, options, {
      hover: (bar, x, y) => setHover(bar < 0 ? null : { bar, x, y }),
      focus: (bar) => {
        const { onFocus, onRefine } = latest.current;
        if (isFolded(latest.current.model, bar) && onRefine) onRefine();
        else onFocus(bar);
      },
      select: (bar) => latest.current.onSelect(bar),
      menu: (bar, x, y) => {
        latest.current.onSelect(bar);
        setMenu({ bar, x, y });
      },
      cursor: (bar) => {
        latest.current.onSelect(bar);
        setAnnouncement(describe(latest.current.model, bar, latest.current.unit));
      },
    });
    view.current = created;
    shown.current = null;
    return () => {
      created.destroy();
      view.current = null;
    };
    // The view lives as long as its element; an effect below updates its options.
  }, []);

  useEffect(() => {
    const current = view.current!;
    if (shown.current === model) return current.setFocus(focused);
    const old = shown.current;
    const cursor = old && current.current !== ROOT ? findFocus(model, focusKey(old, current.current)) : -1;
    shown.current = model;
    setHover(null);
    current.setModel(model, focused);
    if (cursor > 0) current.setCursor(cursor);
    setMenu((open) => {
      const bar = open && old ? findFocus(model, focusKey(old, open.bar)) : -1;
      return open && bar > 0 ? { ...open, bar } : null;
    });
  }, [model, focused]);
  useEffect(() => view.current!.setOptions(options), [options]);
  useEffect(() => view.current!.setSearch(props.search?.marked ?? null), [props.search, model]);
  useEffect(() => view.current!.setSelected(props.selected === '' ? -1 : model.names.indexOf(props.selected)), [props.selected, model]);

  useImperativeHandle(props.ref, () => ({
    step: (step) => view.current?.step(step),
    current: () => view.current?.current ?? ROOT,
    dropCursor: () => view.current?.setCursor(-1),
    home: () => view.current?.home(),
    image: () => view.current?.toBlob() ?? Promise.resolve(null),
  }), []);

  return (
    <div className={style['root']}>
      <div
        ref={host}
        className={style['host']}
        tabIndex={0}
        role="application"
        aria-label={`Flame graph of ${model.count - 1} bars. Arrow keys move, Enter zooms, Escape goes back. The table lists the same functions.`}
        data-testid="flamegraph"
      />
      <div className="visually-hidden" aria-live="polite">
        {announcement}
      </div>
      {hover && hover.bar < model.count && !menu && <Tooltip model={model} unit={unit} focused={focused} search={props.search} {...hover} />}
      {menu && (
        <Menu
          {...menu}
          name={nameOf(model, Math.min(menu.bar, model.count - 1))}
          isFolded={isFolded(model, Math.min(menu.bar, model.count - 1))}
          onClose={() => {
            setMenu(null);
            host.current?.focus({ preventScroll: true });
          }}
          onFocus={() => props.onFocus(menu.bar)}
          onCopy={() => props.onCopy(menu.bar)}
          onRefine={props.onRefine}
        />
      )}
    </div>
  );
}

function isFolded(model: FlameModel, bar: number): boolean {
  return bar !== ROOT && nameOf(model, bar) === FOLDED_NAME && model.childCount[bar] === 0;
}

function describe(model: FlameModel, bar: number, unit: string): string {
  const whole = model.total[ROOT]!;
  return `${nameOf(model, bar)}, total ${formatValue(model.total[bar]!, unit)}, ${formatPercent(model.total[bar]!, whole)}, self ${formatValue(model.self[bar]!, unit)}`;
}

function Tooltip(props: { model: FlameModel; unit: string; focused: number; search: SearchResult | null; bar: number; x: number; y: number }) {
  const { model, unit, bar, focused, x, y } = props;
  const whole = model.total[ROOT]!;
  const total = model.total[bar]!;
  const self = model.self[bar]!;
  const row = (label: string, value: number, base: number) => (
    <tr>
      <th scope="row">{label}</th>
      <td>{formatValue(value, unit)}</td>
      <td>{formatPercent(value, base)}</td>
    </tr>
  );
  return (
    <div
      role="tooltip"
      className={style['tip']}
      ref={(tip) => {
        if (!tip) return;
        const left = x + 16 + tip.offsetWidth > innerWidth - 8 ? Math.max(8, x - 16 - tip.offsetWidth) : x + 16;
        const top = y + 20 + tip.offsetHeight > innerHeight - 8 ? y - 12 - tip.offsetHeight : y + 20;
        tip.style.setProperty('left', `${left}px`);
        tip.style.setProperty('top', `${top}px`);
      }}
    >
      <div className={style['tipName']}>{isFolded(model, bar) ? 'other: functions too small to send' : nameOf(model, bar)}</div>
      <table>
        <tbody>
          {row('Total', total, whole)}
          {row('Self', self, whole)}
          {focused !== ROOT && bar !== focused && model.level[bar]! > model.level[focused]! && row('Of focus', total, model.total[focused]!)}
        </tbody>
      </table>
      {isFolded(model, bar) && <div className={style['tipHint']}>click to load more of them</div>}
    </div>
  );
}

interface MenuProps {
  x: number;
  y: number;
  name: string;
  isFolded: boolean;
  onClose: () => void;
  onFocus: () => void;
  onCopy: () => void;
  onRefine: (() => void) | null;
}

function Menu(props: MenuProps) {
  const root = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = root.current!;
    element.style.left = `${Math.min(props.x, innerWidth - element.offsetWidth - 8)}px`;
    element.style.top = `${Math.min(props.y, innerHeight - element.offsetHeight - 8)}px`;
    element.querySelector('button')?.focus();
    const pressed = (event: PointerEvent): void => {
      if (!element.contains(event.target as Node)) props.onClose();
    };
    window.addEventListener('pointerdown', pressed, true);
    return () => window.removeEventListener('pointerdown', pressed, true);
  }, []);
  const item = (icon: 'focus' | 'copy' | 'plus', label: string, key: string, act: () => void) => (
    <button
      type="button"
      role="menuitem"
      onClick={() => {
        act();
        props.onClose();
      }}
    >
      <Icon name={icon} />
      <span>{label}</span>
      <kbd>{key}</kbd>
    </button>
  );
  return (
    <div
      ref={root}
      role="menu"
      aria-label={props.name}
      className={style['menu']}
      onKeyDown={(event) => {
        event.stopPropagation();
        const items = [...root.current!.querySelectorAll('button')];
        const index = items.indexOf(document.activeElement as HTMLButtonElement);
        if (event.key === 'Escape') props.onClose();
        else if (event.key === 'ArrowDown') items[(index + 1) % items.length]?.focus();
        else if (event.key === 'ArrowUp') items[(index - 1 + items.length) % items.length]?.focus();
      }}
    >
      <div className={style['menuName']}>{props.name}</div>
      {item('focus', 'Focus block', 'f', props.onFocus)}
      {item('copy', 'Copy function name', 'c', props.onCopy)}
      {props.isFolded && props.onRefine && item('plus', 'Load more functions', '', props.onRefine)}
    </div>
  );
}
