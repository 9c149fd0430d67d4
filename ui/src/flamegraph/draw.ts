// Paints the visible bars on a canvas.
//
// Owns: the colour and label of each bar. Text is measured once: the font is monospaced.
// Does not own: which bars are visible (`layout`), events (`view`).
import { colour, mix, packageColour, packagePalette, parseColour, valuePalette, VALUE_SHADES, type Colour, type Colouring } from './colours';
import { ROW_HEIGHT, type Bars } from './layout';
import { FOLDED_NAME, nameOf, ROOT, type FlameModel } from './model';
import { fitName } from './names';

/** Narrower bars are muted, so that large ones stand out. */
const MUTED_WIDTH = 10;
/** Share of its own colour in a narrow bar. */
const MUTED_SHARE = 0.45;
/** Share of its own colour in a bar above the focused one. */
const FADED_SHARE = 0.5;
/** Narrower bars are underlined: an outline would cover them. */
const OUTLINED_WIDTH_MIN = 6;
const LABEL_WIDTH_MIN = 20;
const PADDING = 5;

export interface Paint {
  dark: boolean;
  font: string;
  /** Bars that are too small, folded, or do not match the search. */
  muted: Colour;
  /** Background of the bars and the hairline between them. */
  ground: string;
  accent: string;
  text: string;
}

/** Holds the parts that frames share: a colour per name and the measured font. */
export class Painter {
  private readonly colourByName: Uint8Array;
  private readonly palette: Colour[];
  private readonly narrow: Colour[];
  private readonly faded: Colour[];
  private readonly fadedMuted: Colour;
  private readonly folded: number;
  private charWidth = 0;

  constructor(
    private readonly model: FlameModel,
    private readonly paint: Paint,
    private readonly colouring: Colouring,
    private readonly formatValue: (value: number) => string,
  ) {
    this.palette = colouring === 'package' ? packagePalette(paint.dark) : valuePalette();
    this.narrow = this.palette.map((full) => mix(full, paint.muted, MUTED_SHARE));
    const ground = colour(parseColour(paint.ground));
    this.faded = this.palette.map((full) => mix(full, ground, FADED_SHARE));
    this.fadedMuted = mix(paint.muted, ground, FADED_SHARE);
    this.colourByName = Uint8Array.from(model.names, (name) => packageColour(name));
    this.folded = model.names.indexOf(FOLDED_NAME);
  }

  /** Draws one frame. `top` is the scroll position in pixels. */
  frame(
    context: CanvasRenderingContext2D,
    bars: Bars,
    size: { width: number; height: number; top: number },
    marks: { hover: number; cursor: number; selectedName: number; matched: Uint8Array | null; focusLevel: number },
  ): void {
    const { model, paint } = this;
    context.fillStyle = paint.ground;
    context.fillRect(0, 0, size.width, size.height);
    context.font = paint.font;
    context.textBaseline = 'middle';
    if (this.charWidth === 0) this.charWidth = context.measureText('MMMMMMMMMM').width / 10;

    for (let i = 0; i < bars.count; i++) {
      const bar = bars.bar[i]!;
      const level = bars.level[i]!;
      const left = bars.left[i]!;
      const width = bars.width[i]!;
      const y = level * ROW_HEIGHT - size.top;
      const barColour = this.colourOf(bar, width, marks.matched, level < marks.focusLevel);
      context.fillStyle = barColour.fill;
      // The hairline between neighbours is the uncovered ground.
      context.fillRect(left, y, width > 3 ? width - 1 : width, ROW_HEIGHT - 1);
      if (bar >= 0 && width >= LABEL_WIDTH_MIN) this.label(context, bar, left, width, y, barColour.text);
    }

    for (let i = 0; i < bars.count; i++) {
      const bar = bars.bar[i]!;
      if (bar < 0) continue;
      const selected = model.name[bar] === marks.selectedName && bar !== ROOT;
      if (bar !== marks.hover && bar !== marks.cursor && !selected) continue;
      const strong = bar === marks.cursor || bar === marks.hover;
      context.lineWidth = strong ? 2 : 1.5;
      context.strokeStyle = selected || bar === marks.cursor ? paint.accent : paint.text;
      const inset = context.lineWidth / 2;
      const y = bars.level[i]! * ROW_HEIGHT - size.top;
      if (!strong && bars.width[i]! < OUTLINED_WIDTH_MIN) {
        context.fillStyle = paint.accent;
        context.fillRect(bars.left[i]!, y + ROW_HEIGHT - 3, bars.width[i]!, 2);
        continue;
      }
      context.strokeRect(
        bars.left[i]! + inset,
        y + inset,
        Math.max(1, bars.width[i]! - 1 - 2 * inset),
        ROW_HEIGHT - 1 - 2 * inset,
      );
    }
  }

  private colourOf(bar: number, width: number, matched: Uint8Array | null, isAbove: boolean): Colour {
    const muted = isAbove ? this.fadedMuted : this.paint.muted;
    if (bar < 0 || bar === ROOT) return muted;
    const name = this.model.name[bar]!;
    if (matched ? !matched[name] : name === this.folded) return muted;
    const palette = isAbove ? this.faded : !matched && width < MUTED_WIDTH ? this.narrow : this.palette;
    if (this.colouring === 'package') return palette[this.colourByName[name]!]!;
    const share = this.model.total[bar]! / this.model.total[ROOT]!;
    return palette[Math.min(VALUE_SHADES - 1, Math.floor(share * VALUE_SHADES))]!;
  }

  private label(context: CanvasRenderingContext2D, bar: number, left: number, width: number, y: number, text: string): void {
    const room = Math.floor((width - 2 * PADDING) / this.charWidth);
    if (room < 1) return;
    const name = fitName(nameOf(this.model, bar), room);
    context.fillStyle = text;
    context.fillText(name, left + PADDING, y + ROW_HEIGHT / 2);
    const value = this.formatValue(this.model.total[bar]!);
    if (room - name.length - 2 < value.length) return;
    context.fillText(value, left + width - PADDING - 1 - value.length * this.charWidth, y + ROW_HEIGHT / 2);
  }
}
