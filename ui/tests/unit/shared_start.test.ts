import { test } from 'vitest';
import { withoutSharedStart } from '../../src/format/shared_start';
import { check } from './check';

test('names lose the words that all begin with', () => {
  const cases: [string[], string[]][] = [
    [['checkout-api-7d9f-00010', 'checkout-api-7d9f-00011'], ['…00010', '…00011']],
    [['checkout-api-eu', 'checkout-api-eu-west'], ['…eu', '…eu-west']],
    [['eu-west-1', 'eu-west-2', ''], ['eu-west-1', 'eu-west-2', '']],
    [['eu-west-1', 'us-east-1'], ['eu-west-1', 'us-east-1']],
    [['eu-1', 'eu-2'], ['eu-1', 'eu-2']],
    [['checkout-api-7d9f-00010'], ['checkout-api-7d9f-00010']],
    [[], []],
  ];
  for (const [names, expected] of cases) check(names, withoutSharedStart(names), expected);
});
