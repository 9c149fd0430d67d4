// A flame graph on a canvas: model → layout → draw → hit test → input. No framework inside.
export { colour, packageColour, packagePalette, parseColour, type Colouring } from './colours';
export type { Paint } from './draw';
export type { Step } from './layout';
export {
  ancestry,
  buildModel,
  filterStacks,
  findFocus,
  focusKey,
  foldedText,
  FOLDED_NAME,
  nameOf,
  ROOT,
  sumFunctions,
  type EncodedFlameGraph,
  type FlameModel,
  type FunctionSums,
} from './model';
export { tailStart } from './names';
export { search, type SearchResult } from './search';
export { FlameView, type FlameEvents, type FlameOptions } from './view';
