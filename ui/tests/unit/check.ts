// One row of a table test: what was given, what came out, what should have.
import { expect } from 'vitest';

export function check<T>(given: unknown, actual: T, expected: T): void {
  expect(actual, `for ${JSON.stringify(given)}`).toEqual(expected);
}
