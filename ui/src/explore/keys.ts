// The keys of the Explore page; `shortcuts` lists them.
import { nameOf, ROOT, type Step } from '../flamegraph';
import { toggleTheme } from '../theme';
import type { Explore } from './use_explore';

/** Acts on a key; false if it has no meaning here. */
export function pressKey(key: string, page: Explore): boolean {
  const { state, profile } = page;
  const bar = page.flame.current?.current() ?? ROOT;
  switch (key) {
    case '/':
      page.searchField.current?.focus();
      page.searchField.current?.select();
      return true;
    case 'f':
      if (bar !== ROOT) page.focusBar(bar);
      else page.focusName(state.select);
      return true;
    case 'c':
      page.copy(profile.model && bar !== ROOT ? nameOf(profile.model, bar) : state.select, 'the name');
      return true;
    case 'r':
      page.queries.refresh();
      return true;
    case 'e':
      page.toggleExplain();
      return true;
    case 't':
      toggleTheme();
      return true;
    case '?':
      page.showHelp(true);
      return true;
    case 'Escape':
      stepBack(page);
      return true;
    case 'Enter':
      if (bar === profile.focused) return false;
      page.focusBar(bar);
      return true;
    case 'ArrowUp':
    case 'ArrowDown':
    case 'ArrowLeft':
    case 'ArrowRight':
      page.flame.current?.step(key.slice(5).toLowerCase() as Step);
      return true;
    default:
      return false;
  }
}

/** Undoes the first of panel, search, zoom and selection that is set. */
function stepBack({ state, change, profile, flame, explain, select }: Explore): void {
  if (state.explain === 'shown') explain(false);
  else if (state.search !== '') change({ search: '' });
  else if (profile.focused !== ROOT || state.focus !== '') change({ focus: '' });
  else {
    flame.current?.home();
    select('');
  }
}
