// A deterministic profile of any size.

export interface Encoded {
  names: string[];
  levels: { values: string[] }[];
  total: string;
  maxSelf: string;
}

const FUNCTIONS = [
  'main.main', 'net/http.(*conn).serve', 'net/http.HandlerFunc.ServeHTTP', 'github.com/acme/checkout/cart.(*Cart).Total',
  'github.com/acme/checkout/tax.Rate', 'encoding/json.Marshal', 'encoding/json.(*encodeState).reflectValue',
  'runtime.mallocgc', 'runtime.gcBgMarkWorker', 'runtime.scanobject', 'database/sql.(*DB).QueryContext',
  'github.com/jackc/pgx/v5.(*Conn).Query', 'crypto/tls.(*Conn).Write', 'syscall.Syscall', 'strconv.AppendInt',
  'sort.pdqsort_func', 'regexp.(*Regexp).doExecute', 'compress/flate.(*compressor).deflate', 'runtime.memmove',
  'runtime.mapaccess1_faststr', 'internal/poll.(*FD).Write', 'fmt.Sprintf', 'time.Now', 'sync.(*Mutex).Lock',
  'github.com/acme/checkout/price.(*Engine).evaluateAllTheRulesOfTheCampaign', 'bytes.(*Buffer).grow',
];

interface Node {
  name: number;
  total: number;
  self: number;
  children: Node[];
}

export function profile(bars: number, total: number): Encoded {
  const many = bars > 10_000;
  const names = ['total', ...FUNCTIONS, ...(many ? Array.from({ length: 4000 }, (_, i) => `pkg${i % 97}/mod.Function${i}`) : [])];
  const random = generator(7);
  const root: Node = { name: 0, total, self: 0, children: [] };
  const queue: { node: Node; depth: number }[] = [{ node: root, depth: 0 }];
  let made = 1;
  for (let next = 0; next < queue.length && made < bars; next++) {
    const { node, depth } = queue[next]!;
    if (node.total < 2 || depth > 48) {
      node.self = node.total;
      continue;
    }
    const self = depth < 2 ? 0 : Math.floor(node.total * random() * (depth < 6 ? 0.1 : 0.4));
    const width = depth < 2 ? 2 : 1 + Math.floor(random() * (many ? 6 : 4));
    let left = node.total - self;
    const used = new Set<number>();
    for (let i = 0; i < width && left > 0; i++) {
      const share = i === width - 1 ? left : Math.floor(left * (0.3 + random() * 0.5));
      let name = depth === 0 ? 1 + i * 8 : 2 + Math.floor(random() * (names.length - 2));
      while (used.has(name)) name = 1 + (name % (names.length - 1));
      used.add(name);
      if (share <= 0) continue;
      const child: Node = { name, total: share, self: 0, children: [] };
      node.children.push(child);
      left -= share;
      made++;
      queue.push({ node: child, depth: depth + 1 });
    }
    node.self = self + left;
    node.children.sort((a, b) => (names[a.name]! < names[b.name]! ? -1 : 1));
  }
  const levels: { values: string[] }[] = [];
  let maxSelf = 0;
  let level: { node: Node; x: number }[] = [{ node: root, x: 0 }];
  while (level.length > 0) {
    const values: string[] = [];
    const below: { node: Node; x: number }[] = [];
    let cursor = 0;
    for (const { node, x } of level) {
      if (node.children.length === 0) node.self = node.total;
      values.push(String(x - cursor), String(node.total), String(node.self), String(node.name));
      cursor = x + node.total;
      maxSelf = Math.max(maxSelf, node.self);
      let left = x + node.self;
      for (const child of node.children) {
        below.push({ node: child, x: left });
        left += child.total;
      }
    }
    levels.push({ values });
    level = below;
  }
  return { names, levels, total: String(total), maxSelf: String(maxSelf) };
}

function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
