// The colour of a bar.
//
// A function's colour follows from the name of its package alone, by the same hash, the same
// package rule and the same 24 colours as Grafana's flame graph, so that a screenshot from there
// and one from here agree.

export type Colouring = 'package' | 'value';

export interface Colour {
  readonly fill: string;
  /** Dark or light, with the higher contrast on `fill`. */
  readonly text: string;
}

type Rgb = readonly [number, number, number];

const TEXT_DARK: Rgb = [8, 6, 4];
const TEXT_LIGHT: Rgb = [255, 255, 255];

const PACKAGE_COLOURS: readonly Rgb[] = [
  hsl(24, 69, 60),
  hsl(34, 65, 65),
  hsl(194, 52, 61),
  hsl(163, 45, 55),
  hsl(211, 48, 60),
  hsl(246, 40, 65),
  hsl(305, 63, 79),
  hsl(47, 100, 73),
  [183, 219, 171],
  [244, 213, 152],
  [78, 146, 249],
  [249, 186, 143],
  [242, 145, 145],
  [130, 181, 216],
  [229, 168, 226],
  [174, 162, 224],
  [154, 196, 138],
  [242, 201, 109],
  [101, 197, 219],
  [249, 147, 78],
  [234, 100, 96],
  [81, 149, 206],
  [214, 131, 206],
  [128, 110, 183],
];

/** Number of shades of `value` colouring. */
export const VALUE_SHADES = 32;

/** Bars are lighter in the light theme; added to each channel. */
const LIGHT_THEME_LIFT = 38;

export function packagePalette(dark: boolean): Colour[] {
  return PACKAGE_COLOURS.map((rgb) => colour(dark ? rgb : lift(rgb, LIGHT_THEME_LIFT)));
}

/** From yellow (a small share) to red (the whole). */
export function valuePalette(): Colour[] {
  return Array.from({ length: VALUE_SHADES }, (_, shade) => {
    const share = shade / (VALUE_SHADES - 1);
    return colour(hsl(50 - 50 * share, 100, 65 + 7 * share));
  });
}

export function packageColour(name: string): number {
  return murmur3(packageOf(name)) % PACKAGE_COLOURS.length;
}

/**
 * The package part of a function's name: the folder of a script (`app/views.py:10 render` →
 * `app/`), the part before the last two colons (`alloc::vec::push` → `alloc::vec`), or the part up
 * to the first dot after a slash (`net/http.(*conn).serve` → `net/http.`).
 */
export function packageOf(name: string): string {
  for (const extension of ['.php', '.py', '.rb']) {
    const end = name.lastIndexOf(extension);
    if (end >= 0) return name.slice(0, name.lastIndexOf('/', end) + 1);
  }
  const local = name.startsWith('./node_modules/') ? name.slice('./node_modules/'.length) : name;
  const lastColon = local.lastIndexOf(':');
  const colon = lastColon > 0 ? local.lastIndexOf(':', lastColon - 1) : -1;
  if (colon >= 0) {
    const slash = local.indexOf('/');
    return local.slice(0, slash < 0 ? colon : Math.min(slash, colon));
  }
  const slash = name.indexOf('/');
  const dotAfterSlash = slash < 0 ? -1 : name.indexOf('.', slash);
  const dot = dotAfterSlash >= 0 ? dotAfterSlash : name.indexOf('.');
  return dot >= 0 ? name.slice(0, dot + 1) : name;
}

/** MurmurHash3, 32 bit, seed 0, over the low byte of each UTF-16 unit. */
export function murmur3(text: string): number {
  const length = text.length;
  const byte = (index: number): number => text.charCodeAt(index) & 0xff;
  const scramble = (word: number): number => {
    const mixed = Math.imul(word, 0xcc9e2d51);
    return Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593);
  };
  let hash = 0;
  const whole = length & ~3;
  for (let i = 0; i < whole; i += 4) {
    hash ^= scramble(byte(i) | (byte(i + 1) << 8) | (byte(i + 2) << 16) | (byte(i + 3) << 24));
    hash = (hash << 13) | (hash >>> 19);
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
  }
  let rest = 0;
  for (let i = length - 1; i >= whole; i--) rest = (rest << 8) | byte(i);
  if (length !== whole) hash ^= scramble(rest);
  hash ^= length;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

export function colour(rgb: Rgb): Colour {
  const dark = contrast(rgb, TEXT_DARK);
  const light = contrast(rgb, TEXT_LIGHT);
  return { fill: css(rgb), text: css(dark >= light ? TEXT_DARK : TEXT_LIGHT) };
}

/** Mixes `share` of one colour with `1 - share` of the other. */
export function mix(one: Colour, other: Colour, share: number): Colour {
  const a = parseColour(one.fill);
  const b = parseColour(other.fill);
  const channel = (index: 0 | 1 | 2): number => a[index] * share + b[index] * (1 - share);
  return colour([channel(0), channel(1), channel(2)]);
}

/** `#rrggbb` or `rgb(…)`, as a browser computes it. Anything else is black. */
export function parseColour(text: string): Rgb {
  const long = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})/i.exec(text);
  if (long) return [parseInt(long[1]!, 16), parseInt(long[2]!, 16), parseInt(long[3]!, 16)];
  const channels = /^rgba?\(\s*(\d+)[ ,]+(\d+)[ ,]+(\d+)/.exec(text);
  return channels ? [Number(channels[1]), Number(channels[2]), Number(channels[3])] : [0, 0, 0];
}

/** WCAG contrast ratio, 1 to 21. */
export function contrast(a: Rgb, b: Rgb): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high! + 0.05) / (low! + 0.05);
}

function luminance(rgb: Rgb): number {
  const [r, g, b] = rgb.map((channel) => {
    const share = channel / 255;
    return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
}

function css(rgb: Rgb): string {
  return `rgb(${rgb.map(Math.round).join(' ')})`;
}

function lift(rgb: Rgb, amount: number): Rgb {
  return [Math.min(255, rgb[0] + amount), Math.min(255, rgb[1] + amount), Math.min(255, rgb[2] + amount)];
}

function hsl(hue: number, saturation: number, lightness: number): Rgb {
  const s = saturation / 100;
  const l = lightness / 100;
  const channel = (offset: number): number => {
    const k = (offset + hue / 30) % 12;
    return Math.round(255 * (l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}
