// The row above table and graph: search, zoom, colour, export, view.
import { useEffect, useRef, useState } from 'react';
import { ancestry, foldedText, nameOf, ROOT, type FlameModel, type SearchResult } from '../flamegraph';
import { formatCount, formatPercent } from '../format/units';
import { Hint, Term } from '../parts/hint';
import { Icon } from '../parts/icon';
import { Popover } from '../parts/popover';
import { Segments } from '../parts/segments';
import type { ExploreState, ViewMode } from '../state/url';
import type { Change } from '../state/use_url_state';
import controls from '../parts/controls.module.css';
import style from './graph_tools.module.css';

/** Maximum number of callers in a hint. */
const CALLERS_MAX = 10;
const SEARCH_DELAY_MILLISECONDS = 120;

interface GraphToolsProps {
  /** The search field. */
  ref: React.RefObject<HTMLInputElement | null>;
  state: ExploreState;
  /** The visible panels; on a narrow page this may differ from the chosen view. */
  view: ViewMode;
  isNarrow: boolean;
  /** The answer; null before the first. */
  whole: FlameModel | null;
  /** The answer after the filter. */
  model: FlameModel | null;
  focused: number;
  matches: SearchResult | null;
  fileName: string;
  image: () => Promise<Blob | null>;
  onChange: Change;
  onReset: () => void;
}

export function GraphTools(props: GraphToolsProps) {
  const { state, view, isNarrow, whole, model, focused, matches, onChange: change } = props;
  return (
    <div className={style['tools']}>
      <label className={style['search']}>
        <Icon name="search" />
        <SearchField ref={props.ref} value={state.search} onChange={(text) => change({ search: text }, 'replace')} />
      </label>
      <Segments
        label="Effect of a search"
        options={[
          { value: 'highlight', label: 'highlight', hint: 'Grey out the rest' },
          { value: 'filter', label: 'filter', hint: 'Remove stacks without a match' },
        ]}
        value={state.searchMode}
        onChange={(searchMode) => change({ searchMode })}
      />
      {state.focus !== '' && model && (
        <span className={style['pill']}>
          <Icon name="focus" />
          <Term hint={callers(model, focused)}>
            <code>{focused === ROOT ? `${state.focus} (not here)` : nameOf(model, focused)}</code>
          </Term>
          <button type="button" aria-label="Show all again" onClick={() => change({ focus: '' })}>
            <Icon name="close" />
          </button>
        </span>
      )}
      {matches && whole && (
        <span className={style['found']} role="status">
          {formatCount(matches.functions)} {matches.functions === 1 ? 'function' : 'functions'} · {formatPercent(matches.value, whole.total[ROOT]!)}
        </span>
      )}
      <span className={style['gap']} />
      <Hint text="Undo zoom, search and selection">
        <button type="button" className={controls['icon']} onClick={props.onReset}>
          <Icon name="reset" />
          Reset
        </button>
      </Hint>
      <Segments
        label="Colour"
        options={[
          { value: 'package', label: 'package', hint: 'Colour by package' },
          { value: 'value', label: 'value', hint: 'Colour by share of the total' },
        ]}
        value={state.colour}
        onChange={(colour) => change({ colour }, 'replace')}
      />
      <Popover label="Export" align="right" face={<Icon name="download" />} hint="Export">
        {(close) => (
          <div className={controls['choices']}>
            <button
              type="button"
              onClick={() => {
                close();
                if (model) save(new Blob([foldedText(model)], { type: 'text/plain' }), `${props.fileName}.folded`);
              }}
            >
              Folded text
            </button>
            <button
              type="button"
              onClick={() => {
                close();
                void props.image().then((image) => image && save(image, `${props.fileName}.png`));
              }}
            >
              Picture of the graph (PNG)
            </button>
          </div>
        )}
      </Popover>
      <Segments
        label="View"
        options={[
          { value: 'table', label: 'table' },
          ...(isNarrow ? [] : [{ value: 'both' as const, label: 'both' }]),
          { value: 'graph', label: 'graph' },
        ]}
        value={view}
        onChange={(chosen) => change({ view: chosen })}
      />
    </div>
  );
}

/** Shows each key at once, reports the text `SEARCH_DELAY_MILLISECONDS` after the last. */
function SearchField({ ref, value, onChange }: { ref: React.RefObject<HTMLInputElement | null>; value: string; onChange: (text: string) => void }) {
  const [text, setText] = useState(value);
  const reported = useRef(value);
  useEffect(() => {
    if (value !== reported.current) {
      reported.current = value;
      setText(value);
    }
  }, [value]);
  useEffect(() => {
    if (text === reported.current) return;
    const timer = setTimeout(() => {
      reported.current = text;
      onChange(text);
    }, SEARCH_DELAY_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [text, onChange]);
  return (
    <Hint text="Regular expressions, separated by commas">
      <input
        ref={ref}
        type="search"
        aria-label="Search functions"
        placeholder="search functions  /"
        spellCheck={false}
        value={text}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === 'Escape') {
            event.stopPropagation();
            if (text === '') event.currentTarget.blur();
            else setText('');
          } else if (event.key === 'Enter') event.currentTarget.blur();
        }}
      />
    </Hint>
  );
}

/** The path to a bar, limited to the nearest callers. */
function callers(model: FlameModel, bar: number): string {
  const path = ancestry(model, bar).map((ancestor) => nameOf(model, ancestor));
  const left = path.length - CALLERS_MAX;
  return [...(left > 0 ? [`${formatCount(left)} more`] : []), ...path.slice(-CALLERS_MAX)].join(' › ');
}

function save(content: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
