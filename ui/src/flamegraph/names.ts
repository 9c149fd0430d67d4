// Shortens function names: the least informative part is removed first.

/**
 * The index at which the function itself begins: after its path (`net/http.(*conn).serve`), its
 * assembly (`System.Threading!Thread.Start`), its package (`com.acme.shop.Cart.total`), its type
 * (`<T as core::fmt::Debug>::fmt`) or all but the last two parts (`alloc::vec::Vec::push`).
 */
export function tailStart(name: string): number {
  if (name.startsWith('<')) return afterType(name);
  const end = name.search(/[<([{ ]/);
  const head = end < 0 ? name : name.slice(0, end);
  const slash = head.lastIndexOf('/');
  if (slash >= 0 && slash + 1 < name.length) return slash + 1;
  const mark = head.indexOf('!');
  if (mark > 0 && mark + 1 < name.length) return mark + 1;
  const inPackage = /^(?:[a-z_][\w$]*\.){2,}(?=[A-Z])/.exec(head);
  if (inPackage) return inPackage[0].length;
  const last = head.lastIndexOf('::');
  const before = last > 0 ? head.lastIndexOf('::', last - 1) : -1;
  return before > 0 ? before + 2 : 0;
}

/** The index after a leading type in angle brackets; 0 if no name follows. */
function afterType(name: string): number {
  let depth = 0;
  for (let index = 0; index < name.length; index++) {
    if (name[index] === '<') depth++;
    // The `>` of `->` is no closing bracket.
    else if (name[index] === '>' && name[index - 1] !== '-' && --depth === 0) {
      return name.startsWith('::', index + 1) && index + 3 < name.length ? index + 3 : 0;
    }
  }
  return 0;
}

/** `Type` of `<path::Type<T> as Trait>::method`. */
function typeOf(name: string): string {
  const path = /^<(?:[&*]|mut |const |dyn )*([\w:]+)/.exec(name)?.[1] ?? '';
  return path.slice(path.lastIndexOf(':') + 1);
}

/** Shortens a name to `maxChars`: removes the path first, then the type, then the end. */
export function fitName(name: string, maxChars: number): string {
  if (name.length <= maxChars) return name;
  const withType = `${typeOf(name)}::${name.slice(tailStart(name))}`;
  if (name.startsWith('<') && !withType.startsWith('::') && withType.length <= maxChars) return withType;
  const short = name.slice(tailStart(name));
  if (short.length <= maxChars) return short;
  return maxChars <= 1 ? '' : `${short.slice(0, maxChars - 1)}…`;
}
