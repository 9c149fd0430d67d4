// How a function's name is shortened: what says least goes first.

/**
 * Where the function itself begins: after its path (`net/http.(*conn).serve`), its assembly
 * (`System.Threading!Thread.Start`), its package (`com.acme.shop.Cart.total`), the type that it is of (`<T as core::fmt::Debug>::fmt`) or all but
 * the last two parts (`alloc::vec::Vec::push`).
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

/** Behind the type in angle brackets that a name begins with; 0 when there is nothing. */
function afterType(name: string): number {
  let depth = 0;
  for (let at = 0; at < name.length; at++) {
    if (name[at] === '<') depth++;
    // The arrow of a function's type closes nothing.
    else if (name[at] === '>' && name[at - 1] !== '-' && --depth === 0) {
      return name.startsWith('::', at + 1) && at + 3 < name.length ? at + 3 : 0;
    }
  }
  return 0;
}

/** The type that `<path::Type<T> as Trait>::method` is of, without its path: `Type`. */
function typeOf(name: string): string {
  const path = /^<(?:[&*]|mut |const |dyn )*([\w:]+)/.exec(name)?.[1] ?? '';
  return path.slice(path.lastIndexOf(':') + 1);
}

/** The name in at most `room` characters: the path goes first, then the type, then the end. */
export function fitName(name: string, room: number): string {
  if (name.length <= room) return name;
  const typed = `${typeOf(name)}::${name.slice(tailStart(name))}`;
  if (name.startsWith('<') && !typed.startsWith('::') && typed.length <= room) return typed;
  const short = name.slice(tailStart(name));
  if (short.length <= room) return short;
  return room <= 1 ? '' : `${short.slice(0, room - 1)}…`;
}
