// The icons of the page: 16 px, one stroke.
const PATHS = {
  chevron: 'M4 6.5 8 10.5 12 6.5',
  close: 'M4 4 12 12M12 4 4 12',
  copy: 'M6 6V3h7v7h-3M3 6h7v7H3z',
  help: 'M6 6a2 2 0 1 1 2.6 1.9c-.4.15-.6.5-.6 1v.6M8 12v.2',
  link: 'M6.5 9.5 9.5 6.5M7 4.5 8.5 3a3 3 0 0 1 4.5 4.5L11.5 9M9 11.5 7.5 13A3 3 0 0 1 3 8.5L4.5 7',
  moon: 'M13 9.5A5.5 5.5 0 0 1 6.5 3a5.5 5.5 0 1 0 6.5 6.5z',
  plus: 'M8 3v10M3 8h10',
  refresh: 'M13 8a5 5 0 1 1-1.5-3.5M13 2.5v3h-3',
  search: 'M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.6 10.6 14 14',
  sun: 'M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8 1.5v1M8 13.5v1M1.5 8h1M13.5 8h1M3.4 3.4l.7.7M11.9 11.9l.7.7M3.4 12.6l.7-.7M11.9 4.1l.7-.7',
  focus: 'M3 6V3h3M10 3h3v3M13 10v3h-3M6 13H3v-3',
  reset: 'M3 3v4h4M3.5 7A5 5 0 1 1 3 9.5',
  warning: 'M8 2.5 14.2 13.2H1.8zM8 6.5v3.2M8 11.4v.2',
  check: 'M3 8.5 6.5 12 13 4.5',
  download: 'M8 2.5v7.5M4.8 7 8 10.2 11.2 7M3 13.5h10',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg width="16" height="16" viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The logo. */
export function Mark() {
  return (
    <svg width="18" height="18" viewBox="0 0 16 16" aria-hidden="true">
      <path fill="currentColor" d="M1 2h14v3H1zM3 6h9v3H3zM5 10h5v3H5z" />
    </svg>
  );
}
