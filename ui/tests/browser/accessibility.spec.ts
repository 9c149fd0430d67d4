// Automatic accessibility checks and a screenshot of each state in both themes.
import AxeBuilder from '@axe-core/playwright';
import { expect, test, type Page } from '@playwright/test';

const EMPTY = ['GetProfileStats', 'Series'];

const STATES: [string, (page: Page) => Promise<void>][] = [
  [
    'explore',
    async (page) => {
      await page.goto('/');
      await expect(page.getByTestId('flamegraph')).toBeVisible();
      await expect(page.getByRole('contentinfo')).toContainText('functions in');
    },
  ],
  [
    'picker',
    async (page) => {
      await page.goto('/');
      await expect(page.getByTestId('flamegraph')).toBeVisible();
      await page.getByRole('button', { name: /^Service:/ }).click();
    },
  ],
  [
    'filter',
    async (page) => {
      await page.goto('/');
      await expect(page.getByTestId('flamegraph')).toBeVisible();
      await page.getByRole('button', { name: 'Add a label filter' }).click();
      await expect(page.getByRole('listbox').getByRole('option').first()).toBeVisible();
    },
  ],
  [
    'explain',
    async (page) => {
      await page.goto('/');
      await expect(page.getByTestId('flamegraph')).toBeVisible();
      await page.keyboard.press('e');
      await expect(page.getByRole('row', { name: /^Read and aggregate/ })).toBeVisible();
    },
  ],
  [
    'partial',
    async (page) => {
      await page.route('**/querier.v1.QuerierService/SelectMergeStacktraces', async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, headers: { ...response.headers(), 'x-pyrograph-partial': '2', 'x-pyrograph-partial-why': '[{"object":"blocks/a","why":"gone"}]', 'x-pyrograph-stale': '42' } });
      });
      await page.goto('/');
      await page.getByRole('button', { name: /^partial:/ }).click();
      await expect(page.getByRole('dialog')).toContainText('blocks/a');
    },
  ],
  [
    'partial-list',
    async (page) => {
      await page.route('**/querier.v1.QuerierService/Series', async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, headers: { ...response.headers(), 'x-pyrograph-partial': '1', 'x-pyrograph-partial-why': '[{"object":"blocks/a","why":"gone"}]' } });
      });
      await page.goto('/');
      await page.getByRole('button', { name: /^Service:/ }).click();
      await page.getByRole('dialog').getByText('1 object missing').click();
      await expect(page.getByRole('dialog')).toContainText('blocks/a');
    },
  ],
  [
    'first-run',
    async (page) => {
      for (const method of EMPTY) await page.route(`**/querier.v1.QuerierService/${method}`, (route) => route.fulfill({ json: {} }));
      await page.goto('/');
      await expect(page.getByRole('heading', { name: 'No profile has arrived yet' })).toBeVisible();
    },
  ],
  [
    'failed',
    async (page) => {
      await page.route('**/querier.v1.QuerierService/SelectMergeStacktraces', (route) =>
        route.fulfill({ status: 503, json: { code: 'unavailable', message: 'starting' } }),
      );
      await page.goto('/');
      await expect(page.getByRole('alert')).toBeVisible();
    },
  ],
];

for (const theme of ['dark', 'light'] as const) {
  for (const [name, reach] of STATES) {
    test(`${name} has no accessibility violation in the ${theme} theme`, async ({ page }, info) => {
      await page.emulateMedia({ colorScheme: theme, reducedMotion: 'reduce' });
      await reach(page);
      await page.screenshot({ path: info.outputPath(`${name}-${theme}.png`) });
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`)).toEqual([]);
    });
  }
}
