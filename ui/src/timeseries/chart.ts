// Stacked columns over time on a canvas.
//
// Owns: scales, columns, the axis, the step at a position.
// Does not own: data, events, the effect of the brush.
import { clock, dateTime, timeTicks, type Range } from '../state/time';

export interface ChartSeries {
  name: string;
  /** Ends of steps in Unix milliseconds, ascending. */
  times: number[];
  /** Already in the unit of the axis. */
  values: number[];
}

export interface ChartInput {
  series: readonly ChartSeries[];
  range: Range;
  /** Milliseconds per column. */
  step: number;
  format: (value: number) => string;
  tick: (value: number) => string;
  /** Whether the axis has multiples of powers of 1024. */
  binary: boolean;
}

export interface ChartPaint {
  ground: string;
  line: string;
  text: string;
  muted: string;
  accent: string;
  font: string;
  series: readonly string[];
}

export const MARGIN = { left: 64, right: 12, top: 8, bottom: 20 };
const LINES = 3;

export class Chart {
  /** By end of step: one value per series. */
  readonly columns = new Map<number, number[]>();
  readonly top: number;
  private readonly isEmpty: boolean;

  constructor(readonly input: ChartInput) {
    input.series.forEach((series, index) => {
      series.times.forEach((time, point) => {
        const column = this.columns.get(time) ?? new Array<number>(input.series.length).fill(0);
        column[index] = series.values[point]!;
        this.columns.set(time, column);
      });
    });
    let highest = 0;
    for (const column of this.columns.values()) {
      let sum = 0;
      for (const value of column) sum += value;
      highest = Math.max(highest, sum);
    }
    this.top = niceTop(highest, input.binary);
    this.isEmpty = highest === 0;
  }

  /** Unix milliseconds at a pixel. */
  timeAt(x: number, width: number): number {
    const { from, until } = this.input.range;
    const share = (x - MARGIN.left) / Math.max(1, width - MARGIN.left - MARGIN.right);
    return from + Math.max(0, Math.min(1, share)) * (until - from);
  }

  xOf(time: number, width: number): number {
    const { from, until } = this.input.range;
    return MARGIN.left + ((time - from) / (until - from)) * (width - MARGIN.left - MARGIN.right);
  }

  /** End of the step that contains a time. */
  stepAt(time: number): number {
    return Math.ceil(time / this.input.step) * this.input.step;
  }

  draw(context: CanvasRenderingContext2D, width: number, height: number, paint: ChartPaint, hover: number | null, brush: [number, number] | null): void {
    const { range, step, tick } = this.input;
    const floor = height - MARGIN.bottom;
    const yOf = (value: number): number => floor - (value / this.top) * (floor - MARGIN.top);
    context.fillStyle = paint.ground;
    context.fillRect(0, 0, width, height);
    context.font = paint.font;

    context.textBaseline = 'middle';
    context.textAlign = 'right';
    for (let line = 0; line <= LINES; line++) {
      const value = (this.top * line) / LINES;
      const y = Math.round(yOf(value)) - 0.5;
      context.fillStyle = paint.line;
      context.fillRect(MARGIN.left, y, width - MARGIN.left - MARGIN.right, 1);
      if (line === 0 || this.isEmpty) continue;
      context.fillStyle = paint.muted;
      context.fillText(tick(value), MARGIN.left - 8, y);
    }

    context.save();
    context.beginPath();
    context.rect(MARGIN.left, 0, width - MARGIN.left - MARGIN.right, floor);
    context.clip();
    for (const [time, column] of this.columns) {
      const left = this.xOf(time - step, width);
      const right = this.xOf(time, width);
      const gap = right - left > 4 ? 1 : 0;
      let base = 0;
      context.globalAlpha = hover === null || hover === time ? 1 : 0.55;
      for (let index = 0; index < column.length; index++) {
        const value = column[index]!;
        if (!(value > 0)) continue;
        const bottom = yOf(base);
        const y = yOf(base + value);
        context.fillStyle = paint.series[index % paint.series.length]!;
        context.fillRect(left, y, Math.max(1, right - left - gap), Math.max(0.5, bottom - y));
        base += value;
      }
    }
    context.globalAlpha = 1;
    if (brush) {
      const [from, to] = brush[0] < brush[1] ? brush : [brush[1], brush[0]];
      context.fillStyle = paint.accent;
      context.globalAlpha = 0.18;
      context.fillRect(from, 0, to - from, floor);
      context.globalAlpha = 1;
      context.fillRect(from, 0, 1, floor);
      context.fillRect(to - 1, 0, 1, floor);
    }
    context.restore();

    context.textAlign = 'center';
    context.textBaseline = 'alphabetic';
    context.fillStyle = paint.muted;
    const long = range.until - range.from > 36 * 3_600_000;
    const short = range.until - range.from < 10 * 60_000;
    for (const time of timeTicks(range, Math.max(2, Math.floor(width / 110)))) {
      const x = this.xOf(time, width);
      if (x < MARGIN.left + 16 || x > width - MARGIN.right - 16) continue;
      context.fillText(long ? dateTime(time).slice(5) : clock(time, short), x, height - 6);
    }
  }
}

/** The next round value: its thirds, the lines of the axis, have few digits. */
export function niceTop(value: number, binary = false): number {
  if (!(value > 0)) return 1;
  if (binary && value >= 1024) {
    const unit = 1024 ** Math.floor(Math.log2(value) / 10);
    return niceTop(value / unit) * unit;
  }
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1.2, 1.5, 1.8, 3, 4.5, 6, 7.5, 9, 12].find((step) => value <= step * power * (1 + 1e-9)) ?? 12;
  return factor * power;
}
