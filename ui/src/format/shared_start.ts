// Shortens names that begin alike.

/** A shorter common prefix is not removed. */
const SHARED_CHARS_MIN = 8;

/** Removes the words that all names begin with: `api-7d9f-0` and `api-7d9f-1` become `…0` and `…1`. */
export function withoutSharedStart(names: readonly string[]): string[] {
  const [first = '', ...others] = names;
  let shared = others.length === 0 ? 0 : first.length;
  for (const name of others) {
    let index = 0;
    while (index < shared && name[index] === first[index]) index++;
    shared = index;
  }
  // Words are not cut.
  const start = /^.*[-._/:]/.exec(first.slice(0, shared))?.[0].length ?? 0;
  return start < SHARED_CHARS_MIN ? [...names] : names.map((name) => `…${name.slice(start)}`);
}
