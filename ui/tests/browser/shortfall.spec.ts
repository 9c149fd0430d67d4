// Notices about incomplete answers of a real server. tests/browser/test_browser.py damages the server and runs them.
import { expect, test, type Page } from '@playwright/test';

/** Name of a damaged object. */
const DAMAGED = process.env['PYROGRAPH_DAMAGED'];
/** Process id of the only metastore of the cluster. */
const OWNER = process.env['PYROGRAPH_OWNER_PID'];

async function open(page: Page): Promise<void> {
  await page.goto('/?from=now-1h');
  await expect(page.getByTestId('flamegraph')).toBeVisible();
  await expect(page.getByRole('contentinfo')).toContainText('functions in');
}

async function openExplanation(page: Page) {
  await page.keyboard.press('e');
  return page.getByRole('region', { name: 'Query details' });
}

test('a damaged block is named with its error beside the rest of the answer', async ({ page }) => {
  test.skip(DAMAGED === undefined, 'needs a server with a damaged block');
  await open(page);
  await expect(page.getByRole('alert')).toContainText('partial: 1 object of this range cannot be read, its profiles are missing');
  await expect(page.getByRole('contentinfo')).toContainText('partial');
  await expect(page.getByRole('gridcell', { name: 'whole', exact: true })).toBeVisible();
  await expect(page.getByRole('gridcell', { name: 'damaged', exact: true })).toHaveCount(0);
  await page.getByRole('button', { name: 'partial: 1 object missing' }).click();
  await expect(page.getByRole('dialog').getByRole('term')).toContainText(DAMAGED!);
  await expect(page.getByRole('dialog').getByRole('definition')).toContainText(/\w+ \w+/);
  await page.keyboard.press('Escape');
  const panel = await openExplanation(page);
  await expect(panel.getByRole('row', { name: /^Missing/ })).toContainText('1 object');
  await expect(panel.getByRole('table', { name: '1 missing object' })).toContainText(DAMAGED!);
});

test('without an owner of the catalog the page states the age of its answers, and the layout does not move', async ({ page }) => {
  test.skip(OWNER === undefined, 'needs a cluster whose metastore may be killed');
  await open(page);
  const alert = page.getByRole('alert');
  await expect(alert).toHaveCount(0);
  const positions = () => Promise.all([page.getByTestId('flamegraph'), page.getByRole('grid'), page.getByRole('main')].map((part) => part.boundingBox()));
  const before = await positions();
  process.kill(Number(OWNER), 'SIGKILL');
  await page.keyboard.press('r');
  await expect(alert).toContainText(/stale: the catalog is \d+ s behind/, { timeout: 20_000 });
  await expect(page.getByTestId('flamegraph')).toBeVisible();
  expect(await positions()).toEqual(before);
  const panel = await openExplanation(page);
  await expect(panel.getByRole('row', { name: /^as of/ })).toContainText(/\d+ s before/, { timeout: 20_000 });
});
