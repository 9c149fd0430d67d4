// What the page says when a real server cannot answer whole. tests/browser/test_browser.py brings it about.
import { expect, test, type Page } from '@playwright/test';

/** Name of a damaged object that the answers lack. */
const DAMAGED = process.env['PYROGRAPH_DAMAGED'];
/** Process of the only metastore of the cluster. */
const OWNER = process.env['PYROGRAPH_OWNER_PID'];

async function open(page: Page): Promise<void> {
  await page.goto('/?from=now-1h');
  await expect(page.getByTestId('flamegraph')).toBeVisible();
  await expect(page.getByRole('contentinfo')).toContainText('functions in');
}

async function openExplanation(page: Page) {
  await page.keyboard.press('e');
  return page.getByRole('region', { name: 'How the answers came about' });
}

test('a damaged block is named, with what is wrong with it, beside what is left of the answer', async ({ page }) => {
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

test('without an owner of the catalog the page says how old its answers are, and nothing moves', async ({ page }) => {
  test.skip(OWNER === undefined, 'needs a cluster whose metastore may be killed');
  await open(page);
  const alert = page.getByRole('alert');
  await expect(alert).toHaveCount(0);
  const places = () => Promise.all([page.getByTestId('flamegraph'), page.getByRole('grid'), page.getByRole('main')].map((part) => part.boundingBox()));
  const before = await places();
  process.kill(Number(OWNER), 'SIGKILL');
  await page.keyboard.press('r');
  await expect(alert).toContainText(/stale: the answer is of what was known \d+ s before it/, { timeout: 20_000 });
  await expect(page.getByTestId('flamegraph')).toBeVisible();
  expect(await places()).toEqual(before);
  const panel = await openExplanation(page);
  await expect(panel.getByRole('row', { name: /^as of/ })).toContainText(/\d+ s before/, { timeout: 20_000 });
});
