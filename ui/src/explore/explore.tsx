// The Explore page: one query, its time series, its flame graph and its functions.
//
// Owns: the places of the parts. Does not own: state and decisions (`use_explore`), keys (`keys`).
import { useId } from 'react';
import { useKeys } from '../parts/hooks';
import { Failure, FirstRun, NoData, NoRange, Waiting } from './empty';
import { ExplainPanel } from './explain_panel';
import { GraphPanels } from './graph_panels';
import { GraphTools } from './graph_tools';
import { pressKey } from './keys';
import { SeriesPanel } from './series_panel';
import { Shortcuts } from './shortcuts';
import { Shortfall, worst } from './shortfall';
import { StatusLine } from './status_line';
import { TopBar } from './top_bar';
import { useExplore, type Explore as ExplorePage } from './use_explore';
import style from './explore.module.css';

export function Explore() {
  const page = useExplore();
  useKeys((key) => pressKey(key, page));
  const panel = useId();
  const { state, change, queries, profile, reports } = page;
  const { range, series, isFirstRun, isExplained, loading, error } = queries;
  return (
    <div className={style['page']}>
      <TopBar
        state={state}
        range={range}
        services={queries.services}
        loading={loading}
        onChange={change}
        onRefresh={queries.refresh}
        onCopyLink={(link) => page.copy(link, 'a link with fixed times')}
        onHelp={() => page.showHelp(true)}
      />

      {isFirstRun ? (
        <main className={style['single']}>
          <FirstRun onCopied={(subject) => page.say(`copied the ${subject}`)} />
        </main>
      ) : (
        <main className={style['main']}>
          <SeriesPanel
            answer={series}
            splitBy={state.splitBy}
            query={state.query}
            range={range}
            isHidden={state.series === 'hidden'}
            notice={<Shortfall reports={reports} onCopy={(text) => page.copy(text, 'the missing objects')} onExplain={() => page.explain(true)} />}
            onHide={(isHidden) => change({ series: isHidden ? 'hidden' : 'shown' }, 'replace')}
            onSplit={(splitBy) => change({ splitBy })}
            onBrush={(from, until) => change({ from: String(from), until: String(until) })}
            onReset={page.showLastHour}
          />
          <GraphTools
            ref={page.searchField}
            state={state}
            view={page.view}
            isNarrow={page.isNarrow}
            whole={profile.whole}
            model={profile.model}
            focused={profile.focused}
            matches={profile.matches}
            fileName={page.service ?? 'profile'}
            image={() => page.flame.current?.image() ?? Promise.resolve(null)}
            onChange={change}
            onReset={page.reset}
          />
          <Content page={page} />
        </main>
      )}
      <StatusLine
        note={page.note}
        facts={page.facts}
        cost={page.cost}
        missing={worst(reports).missing}
        step={series.value && state.series === 'shown' ? series.value.body.step : null}
        loading={loading}
        error={error !== null && profile.model !== null ? error.message : ''}
        panel={panel}
        isExplained={isExplained}
        onExplain={page.toggleExplain}
      />
      {isExplained && range && state.query.type !== '' && !isFirstRun && (
        <ExplainPanel
          id={panel}
          flameGraph={queries.graphToExplain}
          series={queries.seriesToExplain}
          onRefresh={queries.refresh}
          onCopy={(text) => page.copy(text, 'the explanation')}
          onClose={() => page.explain(false)}
        />
      )}
      {page.isHelpShown && <Shortcuts onClose={() => page.showHelp(false)} />}
    </div>
  );
}

function Content({ page }: { page: ExplorePage }) {
  const { content, state, queries } = page;
  switch (content.kind) {
    case 'no range':
      return <NoRange from={state.from} until={state.until} onLastHour={page.showLastHour} />;
    case 'failed':
      return <Failure error={content.error} onCopy={(text) => page.copy(text, 'the error')} onRetry={queries.refresh} />;
    case 'no data':
      return (
        <NoData
          range={content.range}
          stats={queries.stats.value}
          hasFilters={page.hasFilters}
          service={page.service ?? ''}
          hasOtherProfiles={!queries.hasNoService}
          onJump={page.showNewest}
          onDropFilters={page.removeFilters}
          onWiden={() => page.change({ from: 'now-24h', until: 'now' })}
        />
      );
    case 'waiting':
      return <Waiting text={state.query.type === '' ? 'Looking for services…' : 'Waiting for the flame graph…'} />;
    case 'graph':
      return <GraphPanels page={page} model={content.model} sums={content.sums} />;
  }
}
