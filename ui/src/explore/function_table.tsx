// Functions with their self and total values: the accessible equivalent of the graph.
import { useEffect, useId, useMemo, useRef, useState } from 'react';
import { packageColour, packagePalette, ROOT, tailStart, type FlameModel, type FunctionSums, type SearchResult } from '../flamegraph';
import { columnFormat, formatPercent } from '../format/units';
import type { SortColumn } from '../state/url';
import { useTheme } from '../theme';
import { sortFunctions } from './sort_functions';
import style from './function_table.module.css';

const ROW_HEIGHT = 24;
/** Rows rendered above and below the visible ones. */
const OVERSCAN = 8;

interface FunctionTableProps {
  model: FlameModel;
  sums: FunctionSums;
  unit: string;
  search: SearchResult | null;
  sort: SortColumn;
  descending: boolean;
  /** Name of the selected function; empty for none. */
  selected: string;
  onSort: (column: SortColumn, descending: boolean) => void;
  onSelect: (name: string) => void;
  /** Enter or double click: zooms the graph to the function. */
  onFocus: (name: string) => void;
}

export function FunctionTable(props: FunctionTableProps) {
  const { model, sums, sort, descending, selected } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const id = useId();
  const isDark = useTheme() === 'dark';
  const palette = useMemo(() => packagePalette(isDark), [isDark]);
  const order = useMemo(() => sortFunctions(model, sums, sort, descending), [model, sums, sort, descending]);
  const { search } = props;
  const rows = useMemo(() => (search ? order.filter((name) => search.marked[name] === 1) : order), [order, search]);
  const whole = model.total[ROOT]!;
  const format = useMemo(() => {
    let self = 0;
    let total = 0;
    for (const name of sums.present) {
      self = Math.max(self, sums.self[name]!);
      total = Math.max(total, sums.total[name]!);
    }
    return { self: columnFormat(self, props.unit), total: columnFormat(total, props.unit), maxSelf: self };
  }, [sums, props.unit]);
  const selectedRow = useMemo(() => (selected === '' ? -1 : rows.findIndex((name) => model.names[name] === selected)), [rows, selected, model]);

  useEffect(() => {
    const element = scroller.current!;
    const resize = new ResizeObserver(() => setView((last) => ({ ...last, height: element.clientHeight })));
    resize.observe(element);
    return () => resize.disconnect();
  }, []);

  useEffect(() => {
    const element = scroller.current!;
    if (selectedRow < 0) return;
    const top = selectedRow * ROW_HEIGHT;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + ROW_HEIGHT > element.scrollTop + element.clientHeight) element.scrollTop = top + ROW_HEIGHT - element.clientHeight;
  }, [selectedRow]);

  const first = Math.max(0, Math.floor(view.top / ROW_HEIGHT) - OVERSCAN);
  const last = Math.min(rows.length, Math.ceil((view.top + view.height) / ROW_HEIGHT) + OVERSCAN);

  const keyDown = (event: React.KeyboardEvent): void => {
    const page = Math.max(1, Math.floor(view.height / ROW_HEIGHT) - 1);
    const moves: Record<string, number> = {
      ArrowDown: selectedRow + 1,
      ArrowUp: selectedRow < 0 ? 0 : selectedRow - 1,
      PageDown: selectedRow + page,
      PageUp: selectedRow - page,
      Home: 0,
      End: rows.length - 1,
    };
    const next = moves[event.key];
    if (next !== undefined && rows.length > 0) {
      event.preventDefault();
      event.stopPropagation();
      props.onSelect(model.names[rows[Math.max(0, Math.min(rows.length - 1, next))]!]!);
    } else if (event.key === 'Enter' && selectedRow >= 0) {
      event.preventDefault();
      event.stopPropagation();
      props.onFocus(selected);
    }
  };
  const header = (column: SortColumn, label: string) => (
    <div
      role="columnheader"
      aria-sort={sort === column ? (descending ? 'descending' : 'ascending') : 'none'}
      className={column === 'name' ? style['name'] : style['number']}
    >
      <button type="button" onClick={() => props.onSort(column, sort === column ? !descending : column !== 'name')}>
        {label}
        <span aria-hidden="true" className={style['arrow']}>
          {sort === column ? (descending ? '▼' : '▲') : ''}
        </span>
      </button>
    </div>
  );

  return (
    <div
      className={style['root']}
      role="grid"
      aria-label="Functions"
      aria-rowcount={rows.length + 1}
      tabIndex={0}
      aria-activedescendant={selectedRow >= first && selectedRow < last ? `${id}-${rows[selectedRow]}` : undefined}
      onKeyDown={(event) => {
        if (event.target === event.currentTarget) keyDown(event);
      }}
    >
      <div role="rowgroup">
        <div role="row" aria-rowindex={1} className={style['head']}>
          {header('name', 'Function')}
          {header('self', 'Self')}
          {header('total', 'Total')}
        </div>
      </div>
      <div
        ref={scroller}
        role="rowgroup"
        className={style['body']}
        onScroll={(event) => {
          const top = event.currentTarget.scrollTop;
          setView((before) => ({ ...before, top }));
        }}
      >
        <div role="presentation" className={style['spacer']} ref={(spacer) => spacer?.style.setProperty('height', `${rows.length * ROW_HEIGHT}px`)}>
          {Array.from(rows.subarray(first, last), (name, offset) => {
            const text = model.names[name]!;
            const isSelected = text === selected;
            return (
              <div
                key={name}
                id={`${id}-${name}`}
                role="row"
                aria-rowindex={first + offset + 2}
                aria-selected={isSelected}
                className={style['row']}
                ref={(row) => row?.style.setProperty('top', `${(first + offset) * ROW_HEIGHT}px`)}
                onClick={() => props.onSelect(isSelected ? '' : text)}
                onDoubleClick={() => props.onFocus(text)}
              >
                <div role="gridcell" className={style['name']} title={text}>
                  <span className={style['swatch']} ref={(swatch) => swatch?.style.setProperty('background', palette[packageColour(text)]!.fill)} />
                  <Name text={text} />
                </div>
                <Cell value={sums.self[name]!} max={format.maxSelf} text={format.self(sums.self[name]!)} share={formatPercent(sums.self[name]!, whole)} />
                <Cell value={sums.total[name]!} max={whole} text={format.total(sums.total[name]!)} share={formatPercent(sums.total[name]!, whole)} />
              </div>
            );
          })}
        </div>
        {rows.length === 0 && <p className={style['empty']}>no function matches</p>}
      </div>
    </div>
  );
}

/** The package path may be cut off, the function itself is not. */
function Name({ text }: { text: string }) {
  const start = tailStart(text);
  return (
    <span className={style['text']}>
      {start > 0 && <span className={style['path']}>{text.slice(0, start)}</span>}
      <span className={style['tail']}>{text.slice(start)}</span>
    </span>
  );
}

function Cell({ value, max, text, share }: { value: number; max: number; text: string; share: string }) {
  return (
    <div role="gridcell" className={`${style['number']} ${value === 0 ? style['zero'] : ''}`} title={share}>
      <span className={style['value']}>{text}</span>
      <span className={style['track']} aria-hidden="true">
        <span className={style['bar']} ref={(bar) => bar?.style.setProperty('width', `${max > 0 ? (100 * value) / max : 0}%`)} />
      </span>
    </div>
  );
}
