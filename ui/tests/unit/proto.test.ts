// Checks the hand-written messages against proto/.
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const PROTO = new URL('../../../proto/', import.meta.url);
const TYPES = readFileSync(new URL('../../src/api/types.ts', import.meta.url), 'utf8');

/** JSON names of the fields of a message. */
function fieldsOf(file: string, message: string): string[] {
  const text = readFileSync(new URL(file, PROTO), 'utf8');
  const body = new RegExp(`message ${message} \\{([\\s\\S]*?)\\n\\}`).exec(text)?.[1];
  if (body === undefined) throw new Error(`${file} has no message ${message}`);
  return [...body.matchAll(/(\w+)\s*=\s*\d+\s*[;[]/g)].map(([, name]) => name!.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()));
}

function handWritten(message: string): string[] {
  const body = new RegExp(`interface ${message} (?:extends \\w+ )?\\{([\\s\\S]*?)\\n\\}`).exec(TYPES)![1]!;
  return [...body.matchAll(/^ {2}(\w+)\??:/gm)].map(([, name]) => name!);
}

test.skipIf(!existsSync(PROTO))('every field of the hand-written messages exists in the protocol', () => {
  const cases: [string, string][] = [
    ['querier/v1/querier.proto', 'SeriesRequest'],
    ['querier/v1/querier.proto', 'SeriesResponse'],
    ['querier/v1/querier.proto', 'SelectMergeStacktracesRequest'],
    ['querier/v1/querier.proto', 'SelectMergeStacktracesResponse'],
    ['querier/v1/querier.proto', 'FlameGraph'],
    ['querier/v1/querier.proto', 'SelectSeriesRequest'],
    ['querier/v1/querier.proto', 'SelectSeriesResponse'],
    ['types/v1/types.proto', 'LabelNamesRequest'],
    ['types/v1/types.proto', 'LabelValuesRequest'],
    ['types/v1/types.proto', 'GetProfileStatsResponse'],
  ];
  for (const [file, message] of cases) {
    const fields = fieldsOf(file, message);
    for (const name of handWritten(message)) expect(fields, `${message}.${name}`).toContain(name);
  }
});
