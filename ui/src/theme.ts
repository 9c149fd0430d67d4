// Dark or light: what the system prefers until the user says otherwise.
import { useSyncExternalStore } from 'react';

export type Theme = 'dark' | 'light';

const STORED = 'pyrograph.theme';
const prefersDark = matchMedia('(prefers-color-scheme: dark)');
const listeners = new Set<() => void>();

function stored(): Theme | null {
  try {
    const value = localStorage.getItem(STORED);
    return value === 'dark' || value === 'light' ? value : null;
  } catch {
    return null;
  }
}

let chosen = stored();

function current(): Theme {
  return chosen ?? (prefersDark.matches ? 'dark' : 'light');
}

function apply(): void {
  document.documentElement.dataset['theme'] = current();
  for (const listener of listeners) listener();
}

export function startTheme(): void {
  prefersDark.addEventListener('change', apply);
  apply();
}

export function toggleTheme(): void {
  chosen = current() === 'dark' ? 'light' : 'dark';
  try {
    localStorage.setItem(STORED, chosen);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
  apply();
}

export function useTheme(): Theme {
  return useSyncExternalStore((changed) => {
    listeners.add(changed);
    return () => listeners.delete(changed);
  }, current);
}

/** The value of a token in the theme that is on. */
export function token(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
