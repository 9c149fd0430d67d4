// The time series above the graph: a brush zooms, a label splits the series.
import { useEffect, useMemo, useRef, useState, type ReactNode } from 'react';
import type { Reply } from '../api/client';
import { askLabelNames, SERIES_MAX, type SeriesOverTime } from '../api/queries';
import { useAnswer, type Answer } from '../api/use_answer';
import { seriesScale, typeLabel } from '../format/profile_type';
import { withoutSharedStart } from '../format/shared_start';
import { Hint, Term } from '../parts/hint';
import { Icon } from '../parts/icon';
import { OptionList } from '../parts/option_list';
import { Popover } from '../parts/popover';
import { formatSelector, type Query } from '../state/query';
import { dateTime, type Range } from '../state/time';
import { token, useTheme } from '../theme';
import { Chart, MARGIN, type ChartPaint } from '../timeseries/chart';
import { ListShortfall } from './shortfall';
import style from './series_panel.module.css';

const BRUSH_PIXELS_MIN = 4;

interface SeriesPanelProps {
  query: Query;
  /** Null when the address holds no range. */
  range: Range | null;
  answer: Answer<Reply<SeriesOverTime>>;
  splitBy: string;
  isHidden: boolean;
  /** At the end of the header line. */
  notice: ReactNode;
  onHide: (isHidden: boolean) => void;
  onSplit: (label: string) => void;
  onBrush: (from: number, until: number) => void;
  onReset: () => void;
}

export function SeriesPanel(props: SeriesPanelProps) {
  const { answer, splitBy, isHidden } = props;
  const { type } = props.query;
  const scale = useMemo(() => seriesScale(type), [type]);
  const chart = useMemo(() => {
    if (!answer.value) return null;
    const { range, step, series } = answer.value.body;
    return new Chart({
      range,
      step: step * 1000,
      format: scale.format,
      tick: scale.tick,
      binary: scale.binary,
      series: series.map((one) => ({
        ...one,
        values: scale.divideBySeconds ? one.values.map((point) => point / step) : one.values,
      })),
    });
  }, [answer.value, scale]);
  const names = answer.value?.body.series.map((series) => series.name) ?? [];
  const shortNames = withoutSharedStart(names);

  return (
    <section className={`${style['root']} ${isHidden ? style['hidden'] : ''}`} aria-label="Time series">
      <div className={style['head']}>
        <Hint text={isHidden ? 'Show the time series' : 'Hide the time series'}>
          <button type="button" className={style['fold']} aria-expanded={!isHidden} aria-label="Time series" onClick={() => props.onHide(!isHidden)}>
            <Icon name="chevron" />
          </button>
        </Hint>
        <span className={style['title']}>{typeLabel(type)}</span>
        {scale.axis !== '' && <span className={style['axis']}>{scale.axis}</span>}
        <Popover label={`Split by label: ${splitBy || 'none'}`} face={<span className={style['by']}>by: {splitBy || 'none'}<Icon name="chevron" /></span>}>
          {(close) => (
            <LabelMenu
              query={props.query}
              range={props.range}
              splitBy={splitBy}
              onPick={(label) => {
                props.onSplit(label);
                close();
              }}
            />
          )}
        </Popover>
        {splitBy !== '' && names.length >= SERIES_MAX && (
          <Term className={style['axis']} hint="The others are not drawn: the columns add up to less than the total">
            {SERIES_MAX} heaviest
          </Term>
        )}
        {splitBy !== '' && (
          <ul className={style['legend']}>
            {names.map((name, index) => (
              <li key={name}>
                <span className={style['dot']} ref={(dot) => dot?.style.setProperty('background', `var(--series-${(index % 10) + 1})`)} />
                <Term className={style['name']} hint={name}>
                  {name === '' ? '(none)' : shortNames[index]}
                </Term>
              </li>
            ))}
          </ul>
        )}
        {answer.error && (
          <Term className={style['error']} hint={answer.error.message}>
            {answer.error.message}
          </Term>
        )}
        {props.notice}
      </div>
      {!isHidden && (
        <div className={`${style['plot']} ${answer.loading ? style['stale'] : ''}`}>
          {chart && <Plot chart={chart} label={typeLabel(type)} onBrush={props.onBrush} onReset={props.onReset} />}
        </div>
      )}
    </section>
  );
}

function LabelMenu({ query, range, splitBy, onPick }: { query: Query; range: Range | null; splitBy: string; onPick: (label: string) => void }) {
  const key = range && `label names ${query.type} ${formatSelector(query.matchers)} ${range.from} ${range.until}`;
  const labels = useAnswer(key, (signal) => askLabelNames(query.type, query.matchers, range!, signal));
  const options = [{ value: '', label: 'none' }, ...(labels.value?.body ?? []).map((value) => ({ value, label: value }))];
  return <OptionList label="Split by label" options={options} chosen={splitBy} notice={labels.error ? <p className={style['error']}>{labels.error.message}</p> : <ListShortfall answer={labels} />} onPick={onPick} />;
}

function Plot({ chart, label, onBrush, onReset }: { chart: Chart; label: string; onBrush: (from: number, until: number) => void; onReset: () => void }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [hover, setHover] = useState<number | null>(null);
  const [brush, setBrush] = useState<[number, number] | null>(null);
  const theme = useTheme();
  const paint = useMemo(() => readPaint(), [theme]);
  const step = hover === null || size.width === 0 ? null : chart.stepAt(chart.timeAt(hover, size.width));

  useEffect(() => {
    const element = canvas.current!;
    const resize = new ResizeObserver(() => setSize({ width: element.clientWidth, height: element.clientHeight }));
    resize.observe(element);
    return () => resize.disconnect();
  }, []);

  useEffect(() => {
    const element = canvas.current!;
    // A context without alpha is black until the first frame.
    const context = element.getContext('2d');
    if (!context || size.width === 0) return;
    const ratio = window.devicePixelRatio || 1;
    if (element.width !== Math.round(size.width * ratio) || element.height !== Math.round(size.height * ratio)) {
      element.width = Math.round(size.width * ratio);
      element.height = Math.round(size.height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    chart.draw(context, size.width, size.height, paint, brush ? null : step, brush);
  }, [chart, size, step, brush, paint]);

  const clamp = (x: number): number => Math.max(MARGIN.left, Math.min(size.width - MARGIN.right, x));
  const column = step === null ? undefined : chart.columns.get(step);
  const peak = [...chart.columns.values()].reduce((highest, values) => Math.max(highest, values.reduce((sum, value) => sum + value, 0)), 0);
  return (
    <>
      <canvas
        ref={canvas}
        role="img"
        aria-label={`${label} over time, peak ${chart.input.format(peak)}. Drag to zoom.`}
        className={style['canvas']}
        onPointerDown={(event) => {
          if (event.button !== 0) return;
          event.currentTarget.setPointerCapture(event.pointerId);
          const x = clamp(event.nativeEvent.offsetX);
          setBrush([x, x]);
        }}
        onPointerMove={(event) => {
          const x = event.nativeEvent.offsetX;
          if (brush) setBrush([brush[0], clamp(x)]);
          setHover(x);
        }}
        onPointerUp={() => {
          if (!brush) return;
          const [a, b] = [Math.min(...brush), Math.max(...brush)];
          setBrush(null);
          if (b - a < BRUSH_PIXELS_MIN) return;
          onBrush(Math.round(chart.timeAt(a, size.width)), Math.round(chart.timeAt(b, size.width)));
        }}
        onPointerCancel={() => setBrush(null)}
        onPointerLeave={() => setHover(null)}
        onDoubleClick={onReset}
      />
      {hover !== null && step !== null && column && !brush && (
        <div
          className={style['tip']}
          ref={(tip) => {
            if (!tip) return;
            const left = hover + 12 + tip.offsetWidth > size.width ? hover - 12 - tip.offsetWidth : hover + 12;
            tip.style.setProperty('left', `${left}px`);
          }}
        >
          <div className={style['tipTime']}>{dateTime(step, true)}</div>
          {column.map((value, index) =>
            value > 0 ? (
              <div key={index} className={style['tipRow']}>
                <span>{chart.input.series[index]!.name}</span>
                <b>{chart.input.format(value)}</b>
              </div>
            ) : null,
          )}
        </div>
      )}
    </>
  );
}

function readPaint(): ChartPaint {
  return {
    ground: token('--ground'),
    line: token('--line'),
    text: token('--text'),
    muted: token('--muted'),
    accent: token('--accent'),
    font: `11px ${token('--font-mono')}`,
    series: Array.from({ length: 10 }, (_, index) => token(`--series-${index + 1}`)),
  };
}
