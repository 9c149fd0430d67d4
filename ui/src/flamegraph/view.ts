// The flame graph as a DOM element: canvas, scrolling, pointer and keyboard cursor.
//
// Owns: the canvas, the visible part of the profile, the keyboard cursor.
// Does not own: focus, selection and search. The caller sets them; the view only reports events.
import { Bars, barAt, layoutBars, neighbour, ROW_HEIGHT, type Step, type Viewport } from './layout';
import type { Colouring } from './colours';
import { Painter, type Paint } from './draw';
import { ROOT, type FlameModel } from './model';

export interface FlameEvents {
  /** `bar` is -1 when the pointer leaves. Window coordinates. */
  hover(bar: number, x: number, y: number): void;
  /** The user asked to zoom to a bar; the root resets the zoom. */
  focus(bar: number): void;
  select(bar: number): void;
  menu(bar: number, x: number, y: number): void;
  /** The keyboard cursor moved. */
  cursor(bar: number): void;
}

export interface FlameOptions {
  paint: Paint;
  colouring: Colouring;
  formatValue: (value: number) => string;
}

const ZOOM_MILLISECONDS = 120;
const WHEEL_ZOOM = 0.002;
const DRAG_PIXELS_MIN = 4;

export class FlameView {
  private readonly scroller: HTMLDivElement;
  private readonly spacer: HTMLDivElement;
  private readonly canvas: HTMLCanvasElement;
  private readonly context: CanvasRenderingContext2D;
  private readonly resize: ResizeObserver;
  private readonly abort = new AbortController();
  private readonly bars = new Bars();
  private readonly viewport: Viewport = { start: 0, end: 1, width: 0, firstLevel: 0, endLevel: 0 };
  private painter: Painter | null = null;
  private model: FlameModel | null = null;
  private options: FlameOptions;
  private focused = ROOT;
  private hovered = -1;
  private cursor = -1;
  private selectedName = -1;
  private matched: Uint8Array | null = null;
  private height = 0;
  private frameRequest = 0;
  private animation: { from: [number, number]; to: [number, number]; start: number } | null = null;
  private drag: { x: number; start: number; end: number; moved: boolean } | null = null;
  private ignoresClick = false;
  /** Pointer position on the canvas in window coordinates. */
  private pointer: { x: number; y: number } | null = null;

  constructor(
    private readonly host: HTMLElement,
    options: FlameOptions,
    private readonly events: FlameEvents,
  ) {
    this.options = options;
    this.scroller = document.createElement('div');
    this.spacer = document.createElement('div');
    this.canvas = document.createElement('canvas');
    Object.assign(this.scroller.style, { position: 'absolute', inset: '0', overflowX: 'hidden', overflowY: 'auto' });
    Object.assign(this.canvas.style, { position: 'sticky', top: '0', display: 'block' });
    Object.assign(this.spacer.style, { position: 'absolute', top: '0', width: '1px', visibility: 'hidden' });
    this.scroller.tabIndex = -1;
    this.canvas.setAttribute('aria-hidden', 'true');
    this.scroller.append(this.spacer, this.canvas);
    host.append(this.scroller);
    // A context without alpha is black until the first frame.
    const context = this.canvas.getContext('2d');
    if (!context) throw new Error('this browser has no 2d canvas');
    this.context = context;
    this.resize = new ResizeObserver(() => this.measure());
    this.resize.observe(this.scroller);
    this.listen();
  }

  destroy(): void {
    this.abort.abort();
    this.resize.disconnect();
    cancelAnimationFrame(this.frameRequest);
    this.scroller.remove();
  }

  /**
   * Shows a profile; `focused` is the bar that fills the width. A manual zoom is kept, and the bar
   * under the pointer is reported again.
   */
  setModel(model: FlameModel, focused: number): void {
    const zoomed = this.manualZoom();
    this.model = model;
    this.focused = focused;
    this.hovered = -1;
    this.cursor = -1;
    this.animation = null;
    this.spacer.style.height = `${model.depth * ROW_HEIGHT}px`;
    const whole = model.total[ROOT]!;
    [this.viewport.start, this.viewport.end] = zoomed && whole > 0 ? [zoomed[0] * whole, zoomed[1] * whole] : this.extent(focused);
    this.newPainter();
    if (this.pointer) this.hover(this.barUnder(this.pointer), this.pointer.x, this.pointer.y);
  }

  setOptions(options: FlameOptions): void {
    this.options = options;
    this.newPainter();
  }

  setFocus(bar: number): void {
    if (!this.model) return;
    this.focused = bar;
    this.moveTo(this.extent(bar));
  }

  setSearch(marked: Uint8Array | null): void {
    this.matched = marked;
    this.draw();
  }

  /** Index into the model's names, -1 for none. */
  setSelected(name: number): void {
    this.selectedName = name;
    this.draw();
  }

  /** The bar that keys act on: the cursor, or else the focused bar. */
  get current(): number {
    return this.cursor >= 0 ? this.cursor : this.focused;
  }

  setCursor(bar: number): void {
    this.cursor = bar;
    if (bar >= 0) this.reveal(bar);
    this.draw();
  }

  /** Resets the cursor and a manual zoom. */
  home(): void {
    this.cursor = -1;
    if (this.model) this.moveTo(this.extent(this.focused));
  }

  step(step: Step): void {
    if (!this.model) return;
    this.setCursor(this.cursor < 0 ? this.focused : neighbour(this.model, this.cursor, step));
    this.events.cursor(this.cursor);
  }

  toBlob(): Promise<Blob | null> {
    return new Promise((resolve) => this.canvas.toBlob(resolve));
  }

  private extent(bar: number): [number, number] {
    const model = this.model!;
    const start = model.x[bar] ?? 0;
    return [start, start + Math.max(model.total[bar] ?? 0, Number.MIN_VALUE)];
  }

  /** Edges of a manual zoom as shares of the whole; null if the focused bar fills the width. */
  private manualZoom(): [number, number] | null {
    const whole = this.model?.total[ROOT] ?? 0;
    if (!(whole > 0) || this.animation) return null;
    const [start, end] = this.extent(this.focused);
    const { start: left, end: right } = this.viewport;
    return left === start && right === end ? null : [left / whole, right / whole];
  }

  private newPainter(): void {
    if (!this.model) return;
    this.painter = new Painter(this.model, this.options.paint, this.options.colouring, this.options.formatValue);
    this.draw();
  }

  private measure(): void {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.scroller;
    this.viewport.width = width;
    this.height = height;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.paintFrame();
  }

  private moveTo(to: [number, number]): void {
    const from: [number, number] = [this.viewport.start, this.viewport.end];
    if (from[0] === to[0] && from[1] === to[1]) return this.draw();
    if (matchMedia('(prefers-reduced-motion: reduce)').matches) {
      [this.viewport.start, this.viewport.end] = to;
    } else {
      this.animation = { from, to, start: performance.now() };
    }
    this.draw();
  }

  private draw(): void {
    if (this.frameRequest !== 0) return;
    this.frameRequest = requestAnimationFrame(() => {
      this.frameRequest = 0;
      this.advance();
      this.paintFrame();
      if (this.animation) this.draw();
    });
  }

  private advance(): void {
    if (!this.animation) return;
    const { from, to, start } = this.animation;
    const time = Math.min(1, Math.max(0, (performance.now() - start) / ZOOM_MILLISECONDS));
    const eased = 1 - (1 - time) ** 3;
    this.viewport.start = from[0] + (to[0] - from[0]) * eased;
    this.viewport.end = from[1] + (to[1] - from[1]) * eased;
    if (time >= 1) {
      [this.viewport.start, this.viewport.end] = to;
      this.animation = null;
    }
  }

  private paintFrame(): void {
    if (!this.model || !this.painter || this.viewport.width === 0) return;
    const top = this.scroller.scrollTop;
    this.viewport.firstLevel = Math.floor(top / ROW_HEIGHT);
    this.viewport.endLevel = Math.ceil((top + this.height) / ROW_HEIGHT);
    layoutBars(this.model, this.viewport, this.bars);
    const ratio = window.devicePixelRatio || 1;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.painter.frame(
      this.context,
      this.bars,
      { width: this.viewport.width, height: this.height, top },
      {
        hover: this.hovered,
        cursor: this.cursor,
        selectedName: this.selectedName,
        matched: this.matched,
        focusLevel: this.model.level[this.focused] ?? 0,
      },
    );
  }

  private reveal(bar: number): void {
    const model = this.model!;
    const y = model.level[bar]! * ROW_HEIGHT;
    const { scrollTop } = this.scroller;
    if (y < scrollTop) this.scroller.scrollTop = y;
    else if (y + ROW_HEIGHT > scrollTop + this.height) this.scroller.scrollTop = y + ROW_HEIGHT - this.height;
    const [start, end] = this.extent(bar);
    if (end <= this.viewport.start || start >= this.viewport.end) this.moveTo(this.extent(model.parent[bar]! < 0 ? ROOT : model.parent[bar]!));
  }

  private barUnder(point: { x: number; y: number }): number {
    if (!this.model) return -1;
    const box = this.canvas.getBoundingClientRect();
    const level = Math.floor((point.y - box.top + this.scroller.scrollTop) / ROW_HEIGHT);
    const { start, end, width } = this.viewport;
    return barAt(this.model, level, start + ((point.x - box.left) / width) * (end - start));
  }

  private listen(): void {
    const { signal } = this.abort;
    const { canvas } = this;
    this.scroller.addEventListener('scroll', () => this.draw(), { signal, passive: true });
    canvas.addEventListener('pointermove', (event) => this.pointerMoved(event), { signal });
    canvas.addEventListener(
      'pointerleave',
      () => {
        this.pointer = null;
        this.hover(-1, 0, 0);
      },
      { signal },
    );
    canvas.addEventListener('pointerdown', (event) => this.pointerDown(event), { signal });
    canvas.addEventListener('pointerup', () => this.pointerUp(), { signal });
    canvas.addEventListener('pointercancel', () => (this.drag = null), { signal });
    canvas.addEventListener('click', (event) => this.clicked(event), { signal });
    canvas.addEventListener(
      'contextmenu',
      (event) => {
        const bar = this.barUnder(event);
        if (bar < 0) return;
        event.preventDefault();
        this.hover(-1, 0, 0);
        this.setCursor(bar);
        this.events.menu(bar, event.clientX, event.clientY);
      },
      { signal },
    );
    this.scroller.addEventListener('wheel', (event) => this.wheel(event), { signal, passive: false });
  }

  private hover(bar: number, x: number, y: number): void {
    this.canvas.style.cursor = bar >= 0 ? 'pointer' : 'default';
    if (bar !== this.hovered) {
      this.hovered = bar;
      this.draw();
    }
    this.events.hover(bar, x, y);
  }

  private pointerMoved(event: PointerEvent): void {
    if (this.drag) {
      const distance = event.clientX - this.drag.x;
      if (!this.drag.moved && Math.abs(distance) < DRAG_PIXELS_MIN) return;
      if (!this.drag.moved) {
        this.drag.moved = true;
        this.canvas.setPointerCapture(event.pointerId);
        this.hover(-1, 0, 0);
      }
      const span = this.drag.end - this.drag.start;
      this.show(this.drag.start - (distance / this.viewport.width) * span, span);
      return;
    }
    this.pointer = { x: event.clientX, y: event.clientY };
    this.hover(this.barUnder(event), event.clientX, event.clientY);
  }

  private pointerDown(event: PointerEvent): void {
    if (event.button !== 0) return;
    this.animation = null;
    this.drag = { x: event.clientX, start: this.viewport.start, end: this.viewport.end, moved: false };
    this.host.focus({ preventScroll: true });
  }

  private pointerUp(): void {
    this.ignoresClick = this.drag?.moved ?? false;
    this.drag = null;
  }

  private clicked(event: MouseEvent): void {
    if (this.ignoresClick) {
      this.ignoresClick = false;
      return;
    }
    const bar = this.barUnder(event);
    if (bar < 0) return;
    this.cursor = bar;
    this.events.select(bar);
    this.events.focus(bar);
    // A click on the focused bar undoes a manual zoom.
    if (bar === this.focused) this.moveTo(this.extent(bar));
  }

  private wheel(event: WheelEvent): void {
    if (!this.model) return;
    const { start, end, width } = this.viewport;
    const span = end - start;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.animation = null;
      const box = this.canvas.getBoundingClientRect();
      const share = (event.clientX - box.left) / width;
      const whole = this.model.total[ROOT]!;
      const next = Math.min(whole, Math.max(whole * 1e-6, span * Math.exp(event.deltaY * WHEEL_ZOOM)));
      this.show(start + share * (span - next), next);
      return;
    }
    const across = event.shiftKey ? event.deltaY : event.deltaX;
    if (Math.abs(across) <= (event.shiftKey ? 0 : Math.abs(event.deltaY))) return;
    event.preventDefault();
    this.animation = null;
    this.show(start + (across / width) * span, span);
  }

  private show(start: number, span: number): void {
    const whole = this.model!.total[ROOT]!;
    this.viewport.start = Math.max(0, Math.min(start, whole - span));
    this.viewport.end = this.viewport.start + span;
    this.draw();
  }
}
