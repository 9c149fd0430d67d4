/** Shorter than this, what names share is worth its room. */
const SHARED_CHARS_MIN = 8;

/** Names without the words that all of them begin with: `api-7d9f-0` and `api-7d9f-1` are `…0` and `…1`. */
export function withoutSharedStart(names: readonly string[]): string[] {
  const [first = '', ...others] = names;
  let shared = others.length === 0 ? 0 : first.length;
  for (const name of others) {
    let at = 0;
    while (at < shared && name[at] === first[at]) at++;
    shared = at;
  }
  // A word is never cut.
  const start = /^.*[-._/:]/.exec(first.slice(0, shared))?.[0].length ?? 0;
  return start < SHARED_CHARS_MIN ? [...names] : names.map((name) => `…${name.slice(start)}`);
}
