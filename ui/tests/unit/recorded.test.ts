// Checks against recorded answers of the reference server, if they are available.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { buildModel, ROOT, sumFunctions, type EncodedFlameGraph } from '../../src/flamegraph';

const SHARED = process.env['PYROGRAPH_SHARED'] ?? new URL('../../../../shared', import.meta.url).pathname;
const CASES = `${SHARED}/golden/cases`;

interface Case {
  queries?: { path?: string; response?: { status?: number; body?: { flamegraph?: EncodedFlameGraph & { total?: string | number } } } }[];
}

test.skipIf(!existsSync(CASES))('recorded flame graphs keep every bar and their total weight', () => {
  let graphs = 0;
  for (const file of readdirSync(CASES).filter((name) => name.endsWith('.json'))) {
    const { queries = [] } = JSON.parse(readFileSync(`${CASES}/${file}`, 'utf8')) as Case;
    for (const { path, response } of queries) {
      const flamegraph = path?.endsWith('/SelectMergeStacktraces') ? response?.body?.flamegraph : undefined;
      if (!Array.isArray(flamegraph?.levels)) continue;
      const model = buildModel(flamegraph);
      let bars = 0;
      for (const { values = [] } of flamegraph.levels) for (let i = 1; i < values.length; i += 4) if (Number(values[i]) > 0) bars++;
      expect(model.count, file).toBe(Math.max(1, bars));
      const total = Number(flamegraph.total ?? 0);
      expect(model.total[ROOT], file).toBe(total);
      let self = 0;
      for (const value of sumFunctions(model).self) self += value;
      expect(self + model.self[ROOT]!, file).toBe(total);
      graphs++;
    }
  }
  expect(graphs).toBeGreaterThan(0);
  console.log(`${graphs} recorded flame graphs`);
});
