// The function table and the flame graph, alone or side by side.
import { nameOf, ROOT, type FlameModel, type FunctionSums } from '../flamegraph';
import { FlameHost } from './flame_host';
import { FunctionTable } from './function_table';
import type { Explore } from './use_explore';
import style from './graph_panels.module.css';

interface GraphPanelsProps {
  page: Explore;
  model: FlameModel;
  sums: FunctionSums;
}

export function GraphPanels({ page, model, sums }: GraphPanelsProps) {
  const { state, change, view, flame, select } = page;
  const { matches, isFiltered, focused, unit } = page.profile;
  const { loading } = page.queries.graph;
  return (
    <div className={`${style['panels']} ${view === 'both' ? style['both'] : ''} ${loading ? style['stale'] : ''}`} aria-busy={loading}>
      {view !== 'graph' && (
        <div className={style['tablePane']}>
          <FunctionTable
            model={model}
            sums={sums}
            unit={unit}
            search={matches}
            sort={state.sort}
            descending={state.descending}
            selected={state.select}
            onSort={(sort, descending) => change({ sort, descending }, 'replace')}
            onSelect={(name) => {
              flame.current?.dropCursor();
              select(name);
            }}
            onFocus={page.focusName}
          />
        </div>
      )}
      {view !== 'table' && (
        <div className={style['graphPane']}>
          <FlameHost
            ref={flame}
            model={model}
            unit={unit}
            focused={focused}
            colouring={state.colour}
            search={isFiltered ? null : matches}
            selected={state.select}
            onFocus={page.focusBar}
            onSelect={(bar) => select(bar === ROOT ? '' : nameOf(model, bar))}
            onCopy={(bar) => page.copy(nameOf(model, bar), 'the name')}
            onRefine={page.refine}
          />
        </div>
      )}
    </div>
  );
}
