// One row of a table test: the input, the actual output, the expected output.
import { expect } from 'vitest';

export function check<T>(given: unknown, actual: T, expected: T): void {
  expect(actual, `for ${JSON.stringify(given)}`).toEqual(expected);
}
