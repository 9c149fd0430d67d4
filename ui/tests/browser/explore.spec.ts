// Use of the Explore page in a real browser.
//
// Runs against any server that has profiles, or against tests/mock. Tests that need a special state of
// the server intercept its responses.
import { expect, test, type Page } from '@playwright/test';

const METHOD = '**/querier.v1.QuerierService/';

/** Headers of an incomplete answer. */
const INCOMPLETE = { 'x-pyrograph-partial': '2', 'x-pyrograph-partial-why': '[{"object":"blocks/a","why":"gone"}]', 'x-pyrograph-stale': '42' };

/** Sets the range to one hour: a new server would open with less. */
async function open(page: Page, address = '/?from=now-1h'): Promise<void> {
  await page.goto(address);
  await expect(page.getByTestId('flamegraph')).toBeVisible();
  await expect(page.getByRole('grid', { name: 'Functions' })).toBeVisible();
  await expect(page.getByRole('contentinfo')).toContainText('functions in');
}

/** A point on the graph; rows are counted from the root. */
async function pointOfRow(page: Page, row: number, share = 0.25): Promise<{ x: number; y: number }> {
  const box = (await page.getByTestId('flamegraph').boundingBox())!;
  return { x: box.x + box.width * share, y: box.y + row * 22 + 11 };
}

async function dataRows(page: Page): Promise<string[]> {
  return page.locator('[role=grid] [role=row][aria-rowindex]:not([aria-rowindex="1"])').evaluateAll((rows) =>
    rows
      .sort((a, b) => Number(a.getAttribute('aria-rowindex')) - Number(b.getAttribute('aria-rowindex')))
      .map((row) => row.querySelector('[role=gridcell]')!.getAttribute('title') ?? ''),
  );
}

function parameter(page: Page, name: string): string | null {
  return new URL(page.url()).searchParams.get(name);
}

let problems: string[] = [];
test.beforeEach(({ page }) => {
  problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.text().includes('Failed to load resource')) problems.push(message.text());
  });
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (url.protocol.startsWith('http') && url.origin !== new URL(page.url() === 'about:blank' ? request.url() : page.url()).origin) {
      problems.push(`request to another origin: ${request.url()}`);
    }
  });
});
test.afterEach(() => expect(problems).toEqual([]));

test('the first visit shows a flame graph of a service, and writes the query into the address', async ({ page }) => {
  await open(page, '/');
  expect(new URL(page.url()).pathname).toBe('/explore');
  expect(parameter(page, 'query')).toMatch(/^[\w:]+\{service_name="[^"]+"\}$/);
  expect(parameter(page, 'from')).toMatch(/^now-(15m|1h)$/);
  expect(parameter(page, 'refresh')).toBe('10s');
  expect((await dataRows(page)).length).toBeGreaterThan(3);
  await expect(page.getByRole('img', { name: /over time, peak/ })).toBeVisible();
});

test('a service and a profile type are picked from searchable lists', async ({ page }) => {
  await open(page);
  const service = /service_name="([^"]+)"/.exec(parameter(page, 'query')!)![1]!;
  await page.getByRole('button', { name: /^Service:/ }).click();
  await page.getByRole('combobox', { name: 'Find a service' }).fill(service);
  await page.keyboard.press('Enter');
  await expect(page.getByRole('button', { name: `Service: ${service}` })).toBeVisible();
  await page.getByRole('button', { name: /^Profile type:/ }).click();
  const types = page.getByRole('option');
  expect(await types.count()).toBeGreaterThan(0);
  await types.last().click();
  await expect(page.getByRole('contentinfo')).toContainText('functions in');
  await expect(page.getByTestId('flamegraph')).toBeVisible();
});

test('a click zooms, the tooltip shows self and total, Escape and back undo', async ({ page }) => {
  await open(page);
  const point = await pointOfRow(page, 1, 0.1);
  await page.mouse.move(point.x, point.y);
  const tip = page.getByRole('tooltip');
  await expect(tip).toContainText(/Total.*%/s);
  await expect(tip).toContainText(/Self.*%/s);
  await page.mouse.click(point.x, point.y);
  await expect.poll(() => parameter(page, 'focus')).not.toBeNull();
  await expect(page.getByRole('button', { name: 'Show all again' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect.poll(() => parameter(page, 'focus')).toBeNull();
  await page.goBack();
  await expect.poll(() => parameter(page, 'focus')).not.toBeNull();
  await page.getByRole('button', { name: 'Reset' }).click();
  await expect.poll(() => parameter(page, 'focus')).toBeNull();
  await expect.poll(() => parameter(page, 'select')).toBeNull();
});

test('a search counts its matches and narrows the table; filter removes the rest', async ({ page }) => {
  await open(page);
  const all = await dataRows(page);
  const wanted = all[1]!;
  await page.keyboard.press('/');
  await page.keyboard.type(wanted.slice(0, 60));
  await expect(page.getByText(/\d+ functions? · \d+\.\d\d%/)).toBeVisible();
  await expect.poll(async () => (await dataRows(page)).includes(wanted)).toBe(true);
  await expect.poll(async () => (await dataRows(page)).length).toBeLessThanOrEqual(all.length);
  await page.getByRole('button', { name: 'filter', exact: true }).click();
  await expect.poll(() => parameter(page, 'searchMode')).toBe('filter');
  await expect(page.getByTestId('flamegraph')).toBeVisible();
  await page.getByRole('searchbox', { name: 'Search functions' }).fill('');
  await expect.poll(() => parameter(page, 'search')).toBeNull();
});

test('the table sorts, selects a function, and zooms the graph', async ({ page }) => {
  await open(page);
  await page.getByRole('columnheader', { name: 'Function' }).getByRole('button').click();
  const up = await dataRows(page);
  expect(up).toEqual([...up].sort());
  await page.getByRole('columnheader', { name: 'Total' }).getByRole('button').click();
  await expect(page.getByRole('columnheader', { name: 'Total' })).toHaveAttribute('aria-sort', 'descending');
  const [first] = await dataRows(page);
  await page.getByRole('grid', { name: 'Functions' }).focus();
  await page.keyboard.press('ArrowDown');
  await expect.poll(() => parameter(page, 'select')).toBe(first!);
  await expect(page.locator('[role=row][aria-selected=true]')).toHaveCount(1);
  await page.keyboard.press('Enter');
  await expect.poll(() => parameter(page, 'focus')).not.toBeNull();
});

test('arrows move in the graph, Enter zooms, the table follows', async ({ page }) => {
  await open(page);
  await page.getByTestId('flamegraph').focus();
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowDown');
  await expect.poll(() => parameter(page, 'select')).not.toBeNull();
  await expect(page.locator('[role=row][aria-selected=true]')).toHaveCount(1);
  await page.keyboard.press('Enter');
  await expect.poll(() => parameter(page, 'focus')).not.toBeNull();
});

test('a right click offers to focus and to copy the name', async ({ page, context }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']).catch(() => undefined);
  await open(page);
  const point = await pointOfRow(page, 1, 0.1);
  await page.mouse.click(point.x, point.y, { button: 'right' });
  const menu = page.getByRole('menu');
  const name = await menu.getAttribute('aria-label');
  await menu.getByRole('menuitem', { name: /Copy function name/ }).click();
  await expect(page.getByRole('contentinfo')).toContainText('copied the name');
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(name);
  await page.mouse.click(point.x, point.y, { button: 'right' });
  await menu.getByRole('menuitem', { name: /Focus block/ }).click();
  await expect.poll(() => parameter(page, 'focus')).not.toBeNull();
});

test('table or graph alone take the whole width', async ({ page }) => {
  await open(page);
  const view = page.getByRole('group', { name: 'View' });
  for (const [name, shown, hidden] of [
    ['graph', page.getByTestId('flamegraph').locator('canvas'), page.getByRole('grid')],
    ['table', page.getByRole('grid'), page.getByTestId('flamegraph')],
  ] as const) {
    await view.getByRole('button', { name }).click();
    await expect.poll(() => parameter(page, 'view')).toBe(name);
    await expect(hidden).toHaveCount(0);
    const box = (await shown.boundingBox())!;
    expect(box.width).toBeGreaterThan(1300);
    expect(box.height).toBeGreaterThan(300);
  }
});

test('a key changes the theme, and a reload keeps it', async ({ page }) => {
  await page.emulateMedia({ colorScheme: 'light' });
  await open(page);
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'light');
  await page.keyboard.press('t');
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'dark');
  await page.reload();
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'dark');
});

test('an address restores the page', async ({ page }) => {
  await open(page);
  const point = await pointOfRow(page, 1, 0.1);
  await page.mouse.click(point.x, point.y);
  await page.getByRole('columnheader', { name: 'Total' }).getByRole('button').click();
  await page.getByRole('group', { name: 'Colour' }).getByRole('button', { name: 'value' }).click();
  await expect.poll(() => parameter(page, 'colour')).toBe('value');
  const address = page.url();
  await open(page, address);
  expect(page.url()).toBe(address);
  await expect(page.getByRole('button', { name: 'Show all again' })).toBeVisible();
  await expect(page.getByRole('columnheader', { name: 'Total' })).toHaveAttribute('aria-sort', 'descending');
});

test('a drag over the time series zooms the range, back undoes it', async ({ page }) => {
  await open(page);
  const box = (await page.getByRole('img', { name: /over time/ }).boundingBox())!;
  await page.mouse.move(box.x + box.width * 0.6, box.y + 30);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.98, box.y + 40, { steps: 4 });
  await page.mouse.up();
  await expect.poll(() => parameter(page, 'from')).toMatch(/^\d{13}$/);
  await page.goBack();
  await expect.poll(() => parameter(page, 'from')).toBe('now-1h');
});

test('the time series can be hidden', async ({ page }) => {
  await open(page);
  await page.getByRole('button', { name: 'Time series', exact: true }).click();
  await expect(page.getByRole('img', { name: /over time/ })).toHaveCount(0);
  await expect.poll(() => parameter(page, 'series')).toBe('hidden');
  await page.reload();
  await page.getByRole('button', { name: 'Time series', exact: true }).click();
  await expect(page.getByRole('img', { name: /over time/ })).toBeVisible();
});

test('a label filter is built from suggestions and can be removed', async ({ page }) => {
  await open(page);
  await page.getByRole('button', { name: 'Add a label filter' }).click();
  await expect(page.getByRole('listbox').getByRole('option').first()).toBeVisible();
  const names = await page.getByRole('listbox').getByRole('option').allTextContents();
  const label = names.find((name) => name !== 'service_name') ?? null;
  await page.getByRole('option', { name: label ?? 'service_name', exact: true }).click();
  await expect(page.getByRole('combobox', { name: 'value' })).toBeFocused();
  await page.getByRole('listbox').getByRole('option').first().click();
  const remove = page.getByRole('button', { name: /^Remove filter/ });
  if (label !== null) {
    await expect(remove).toBeVisible();
    await remove.click();
    await expect(remove).toHaveCount(0);
  }
});

test('a label splits the time series', async ({ page }) => {
  await open(page);
  await page.getByRole('button', { name: /^Split by label/ }).click();
  await page.getByRole('option', { name: 'service_name' }).click();
  await expect.poll(() => parameter(page, 'by')).toBe('service_name');
  await expect(page.getByRole('region', { name: 'Time series' }).getByRole('listitem').first()).toBeVisible();
});

test('a range without data states the age of the newest profile and jumps to it', async ({ page }) => {
  await open(page);
  const address = new URL(page.url());
  address.searchParams.set('from', '1500000000000');
  address.searchParams.set('until', '1500003600000');
  await page.goto(address.href);
  await expect(page.getByRole('heading', { name: 'No data in this range' })).toBeVisible();
  await expect(page.getByText(/newest profile was taken .* ago/)).toBeVisible();
  await expect(page.getByRole('button', { name: /read from [\d,]+ object/ })).toBeVisible();
  await page.getByRole('button', { name: 'Jump there' }).click();
  await expect(page.getByTestId('flamegraph')).toBeVisible();
  await expect.poll(() => parameter(page, 'from')).not.toBe('1500000000000');
});

test('a server without profiles shows instructions with its own address', async ({ page, baseURL }) => {
  for (const method of ['GetProfileStats', 'Series']) await page.route(METHOD + method, (route) => route.fulfill({ json: {} }));
  await page.goto('/');
  await expect(page.getByRole('heading', { name: 'No profile has arrived yet' })).toBeVisible();
  for (const language of ['Python', 'Go', 'curl']) {
    await page.getByRole('button', { name: language, exact: true }).click();
    await expect(page.locator('pre').last()).toContainText(new URL(baseURL!).origin);
  }
  await page.unrouteAll();
  await expect(page.getByTestId('flamegraph')).toBeVisible({ timeout: 12_000 });
});

test('a failure shows error and request id, and can be retried', async ({ page }) => {
  await page.route(`${METHOD}SelectMergeStacktraces`, (route) =>
    route.fulfill({
      status: 400,
      headers: { 'x-request-id': 'req-42' },
      json: { code: 'invalid_argument', message: 'matcher pod=~"[": missing closing ]' },
    }),
  );
  await page.goto('/');
  const alert = page.getByRole('alert');
  await expect(alert).toContainText('The flame graph could not be loaded');
  await expect(alert).toContainText('missing closing ]');
  await expect(alert).toContainText('SelectMergeStacktraces · invalid_argument · HTTP 400 · request req-42');
  await page.unrouteAll();
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(page.getByTestId('flamegraph')).toBeVisible();
});

test('an address without a valid range shows an error, and opens with the last hour', async ({ page }) => {
  await open(page);
  const address = new URL(page.url());
  address.searchParams.set('from', 'yesterday');
  await page.goto(address.href);
  await expect(page.getByRole('alert')).toContainText('from “yesterday” until “now”');
  await page.getByRole('button', { name: 'Show the last hour' }).click();
  await expect(page.getByTestId('flamegraph')).toBeVisible();
});

test('a slow first answer shows a waiting message', async ({ page }) => {
  let answer = (): void => undefined;
  const held = new Promise<void>((resolve) => (answer = resolve));
  await page.route(`${METHOD}SelectMergeStacktraces`, async (route) => {
    await held;
    await route.continue();
  });
  await page.goto('/?from=now-1h');
  await expect(page.getByText('Waiting for the flame graph…')).toBeVisible();
  answer();
  await expect(page.getByTestId('flamegraph')).toBeVisible();
});

test('controls of a narrow page do not overlap and stay inside the page', async ({ page }) => {
  await open(page);
  await page.setViewportSize({ width: 700, height: 700 });
  const address = new URL(page.url());
  address.searchParams.set('query', 'process_cpu:cpu:nanoseconds:cpu:nanoseconds{service_name="a-service-whose-name-is-as-long-as-those-of-large-companies",pod=~"checkout-.*",region!="us-east-1"}');
  address.searchParams.set('from', String(Date.now() - 172_800_000));
  address.searchParams.set('until', String(Date.now() - 86_400_000));
  await page.goto(address.href);
  await expect(page.getByRole('banner').getByRole('button', { name: 'Keys' })).toBeVisible();
  const boxes = await page.getByRole('banner').getByRole('button').evaluateAll((buttons) => buttons.map((button) => button.getBoundingClientRect().toJSON() as DOMRect));
  for (const [index, one] of boxes.entries()) {
    expect(one.right).toBeLessThanOrEqual(700);
    for (const other of boxes.slice(index + 1)) expect(one.right <= other.left || other.right <= one.left || one.bottom <= other.top || other.bottom <= one.top).toBe(true);
  }
  expect((await page.getByRole('banner').boundingBox())!.height).toBeLessThan(84);
  await page.getByRole('button', { name: 'Add a label filter' }).click();
  const panel = (await page.getByRole('dialog').boundingBox())!;
  expect(panel.x).toBeGreaterThanOrEqual(0);
  expect(panel.x + panel.width).toBeLessThanOrEqual(700);
});

test('an answer stays until the next arrives, and a superseded one is dropped', async ({ page }) => {
  await open(page);
  let held = 0;
  await page.route(`${METHOD}SelectMergeStacktraces`, async (route) => {
    if (held++ === 0) await new Promise((resolve) => setTimeout(resolve, 1500));
    await route.continue().catch(() => undefined);
  });
  await page.getByRole('button', { name: /^Time range/ }).click();
  await page.getByRole('button', { name: 'last 15 min' }).click();
  await expect(page.getByTestId('flamegraph')).toBeVisible();
  await expect(page.locator('[aria-busy=true]').first()).toBeVisible();
  await page.getByRole('button', { name: /^Time range/ }).click();
  await page.getByRole('button', { name: 'last 30 min' }).click();
  await expect(page.locator('[aria-busy=true]')).toHaveCount(0);
  await page.waitForTimeout(1600);
  expect(parameter(page, 'from')).toBe('now-30m');
  await expect(page.getByTestId('flamegraph')).toBeVisible();
});

test('a key opens the list of keys', async ({ page }) => {
  await open(page);
  await page.keyboard.press('?');
  await expect(page.getByRole('dialog', { name: 'Keys' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog', { name: 'Keys' })).toHaveCount(0);
});

test('a refresh keeps the zoom, the selection and the tooltip', async ({ page }) => {
  await open(page);
  const point = await pointOfRow(page, 1, 0.1);
  await page.mouse.click(point.x, point.y);
  await expect.poll(() => parameter(page, 'focus')).not.toBeNull();
  const focus = parameter(page, 'focus');
  await page.mouse.move(point.x + 40, point.y);
  await expect(page.getByRole('tooltip')).toBeVisible();
  const answered = page.waitForResponse(`${METHOD}SelectMergeStacktraces`);
  await page.keyboard.press('r');
  await answered;
  await page.waitForTimeout(300);
  expect(parameter(page, 'focus')).toBe(focus);
  await expect(page.getByRole('tooltip')).toBeVisible();
  await expect(page.locator('[role=row][aria-selected=true]')).toHaveCount(1);
});

test('a refresh repeats a query with fixed times', async ({ page }) => {
  await open(page);
  const address = new URL(page.url());
  address.searchParams.set('from', String(Date.now() - 3_600_000));
  address.searchParams.set('until', String(Date.now()));
  address.searchParams.delete('refresh');
  await open(page, address.href);
  const answered = page.waitForResponse(`${METHOD}SelectMergeStacktraces`, { timeout: 5000 });
  await page.keyboard.press('r');
  expect((await answered).ok()).toBe(true);
});

test('a refresh that fails keeps the graph and shows the error', async ({ page }) => {
  await open(page);
  await page.route(`${METHOD}SelectMergeStacktraces`, (route) =>
    route.fulfill({ status: 503, json: { code: 'unavailable', message: 'starting' } }),
  );
  await page.keyboard.press('r');
  await expect(page.getByRole('contentinfo')).toContainText('refresh failed: starting');
  await expect(page.getByTestId('flamegraph')).toBeVisible();
  await page.getByRole('button', { name: /^Time range/ }).click();
  await page.getByRole('button', { name: 'last 15 min' }).click();
  await expect(page.getByRole('alert')).toContainText('starting');
});

test('the status line shows the amount of data read; a notice names missing objects and does not move the layout', async ({ page }) => {
  await open(page);
  const status = page.getByRole('contentinfo');
  await expect(status).toContainText(/[\d,]+ profiles?/);
  await expect(status).toContainText(/\d+ ms, [\d.]+ (B|KiB|MiB) read from [\d,]+ objects?/);
  const alert = page.getByRole('alert');
  await expect(alert).toHaveCount(0);
  const positions = async () => Promise.all(['banner', 'main', 'grid'].map((role) => page.getByRole(role as 'main').boundingBox()));
  const before = [...(await positions()), await page.getByTestId('flamegraph').boundingBox()];
  await page.route(`${METHOD}SelectMergeStacktraces`, async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, headers: { ...response.headers(), ...INCOMPLETE } });
  });
  await page.keyboard.press('r');
  await expect(alert).toContainText('partial: 2 objects of this range cannot be read, their profiles are missing');
  await expect(alert).toContainText('the catalog is 42 s behind');
  await expect(status).toContainText('partial');
  expect([...(await positions()), await page.getByTestId('flamegraph').boundingBox()]).toEqual(before);
  await page.getByRole('button', { name: 'partial: 2 objects missing, stale: 42 s old' }).click();
  const details = page.getByRole('dialog');
  await expect(details).toContainText('blocks/a');
  await expect(details).toContainText('gone');
  await expect(details).toContainText('And 1 more.');
  await details.getByRole('button', { name: 'Query details' }).click();
  await expect(page.getByRole('row', { name: /^Read and aggregate/ })).toBeVisible();
  await page.unrouteAll({ behavior: 'wait' });
  await page.keyboard.press('r');
  await expect(alert).toHaveCount(0);
});

test('an incomplete list of options shows a notice', async ({ page }) => {
  await page.route(new RegExp('/querier.v1.QuerierService/(Series|Label(Names|Values))$'), async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, headers: { ...response.headers(), ...INCOMPLETE } });
  });
  await open(page);
  await expect(page.getByRole('alert')).toHaveCount(0);
  for (const button of [/^Service:/, /^Profile type:/, /^Split by label/, 'Add a label filter']) {
    await page.getByRole('button', { name: button }).click();
    const list = page.getByRole('dialog');
    await expect(list.getByRole('alert')).toHaveText('partial: 2 objects missing · stale: 42 s old');
    await expect(list.getByText('gone')).toBeHidden();
    await list.getByRole('combobox').first().focus();
    await page.keyboard.press(button === 'Add a label filter' ? 'Shift+Tab' : 'Tab');
    await page.keyboard.press('Enter');
    await expect(list.getByRole('definition')).toHaveText('gone');
    await expect(list).toContainText('And 1 more.');
    await expect(list).toContainText('the catalog is 42 s behind');
    await page.keyboard.press('Escape');
    await expect(list).toHaveCount(0);
  }
});

test('a stale answer without data does not show the first run', async ({ page }) => {
  for (const method of ['GetProfileStats', 'Series']) await page.route(METHOD + method, (route) => route.fulfill({ json: {}, headers: INCOMPLETE }));
  await page.goto('/');
  await expect(page.getByRole('heading', { name: 'No data in this range' })).toBeVisible();
  await expect(page.getByRole('alert')).toContainText('the catalog is 42 s behind');
});

test('hints open by keyboard and pointer, and Escape closes only the hint', async ({ page }) => {
  await open(page);
  await page.keyboard.press('e');
  const panel = page.getByRole('region', { name: 'Query details' });
  const term = panel.getByRole('button', { name: 'Find objects' });
  const text = 'Catalog lookup of objects that may hold matching profiles';
  const hint = page.getByRole('tooltip');
  await expect(term).toHaveAccessibleDescription(text);
  await expect(hint).toHaveCount(0);
  await page.keyboard.press('Tab');
  await expect(hint).toHaveText(text);
  await page.keyboard.press('Escape');
  await expect(hint).toHaveCount(0);
  await expect(term).toBeFocused();
  await term.hover();
  await expect(hint).toHaveText(text);
  await hint.hover();
  await page.waitForTimeout(300);
  await expect(hint).toHaveText(text);
  await page.mouse.move(5, 5);
  await expect(hint).toHaveCount(0);
  await term.click();
  await expect(hint).toHaveText(text);
  await page.keyboard.press('Escape');
  await expect(panel).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(panel).toHaveCount(0);
});

test('every hint is reachable by keyboard and stays inside the page', async ({ page }) => {
  await open(page, '/?from=now-1h&by=service_name');
  await page.setViewportSize({ width: 700, height: 700 });
  await page.keyboard.press('e');
  await expect(page.getByRole('button', { name: 'Find objects' })).toBeVisible();
  expect(await page.locator('[title]:not([role=gridcell])').count()).toBe(0);
  const described = page.locator('[aria-describedby]');
  expect(await described.count()).toBeGreaterThan(20);
  for (const control of await described.all()) {
    await page.keyboard.press('Shift');
    await control.focus();
    const box = (await page.getByRole('tooltip').boundingBox())!;
    expect([box.x >= 0, box.y >= 0, box.x + box.width <= 700, box.y + box.height <= 700]).toEqual([true, true, true, true]);
  }
});

test('the cost of an answer opens the query details; answers are explained only while they are open', async ({ page, context }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']).catch(() => undefined);
  let [asked, explained] = [0, 0];
  page.on('request', (request) => {
    if (/\/Select\w+$/.test(request.url())) asked++;
    if (request.headers()['x-pyrograph-explain'] === 'true') explained++;
  });
  await open(page);
  const graph = await page.getByTestId('flamegraph').boundingBox();
  const cost = page.getByRole('button', { name: /read from [\d,]+ object/ });
  await expect(cost).toHaveAttribute('aria-expanded', 'false');
  expect([asked, explained]).toEqual([2, 0]);
  const took = await cost.textContent();
  await cost.click();
  const panel = page.getByRole('region', { name: 'Query details' });
  const row = (name: string) => panel.getByRole('row', { name: new RegExp(`^${name} `) });
  await expect(row('Read and aggregate')).toContainText(/\d+\.\d\d ms.*\d+\.\d\d ms/);
  await expect(row('Found')).toContainText(/[1-9]\d* with [1-9]\d* dataset/);
  await expect(row('Answered by')).toContainText(/raw rows|rollups/);
  await expect(row('from object store')).toContainText(/\d B|KiB|MiB/);
  await expect(row('Missing')).toContainText('nothing');
  await expect(panel.getByText(/the first run took \d/)).toBeVisible();
  await expect(cost).toHaveText(took!);
  await expect(panel.getByRole('columnheader', { name: 'Querier' })).toBeVisible();
  expect([asked, explained]).toEqual([4, 2]);
  expect(await page.getByTestId('flamegraph').boundingBox()).toEqual(graph);
  await panel.getByRole('button', { name: 'Copy JSON' }).click();
  await expect(page.getByRole('contentinfo')).toContainText('copied the explanation');
  const copied = JSON.parse(await page.evaluate(() => navigator.clipboard.readText())) as { questions: { found: object }[] };
  expect(copied.questions.map((query) => 'found' in query)).toEqual([true, true]);
  await panel.getByRole('button', { name: 'Ask again' }).click();
  await expect.poll(() => [asked, explained]).toEqual([6, 4]);
  await expect(panel.getByText(/answered at \d/)).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(panel).toHaveCount(0);
  expect([asked, explained]).toEqual([6, 4]);
  await expect(cost).toBeFocused();
});

test('a query that takes longer than the refresh interval is answered', async ({ page }) => {
  await page.route(`${METHOD}SelectMergeStacktraces`, async (route) => {
    await new Promise((done) => setTimeout(done, 2500));
    await route.continue().catch(() => undefined);
  });
  await open(page, '/?from=now-1h&refresh=1s');
  expect(parameter(page, 'refresh')).toBe('1s');
  await expect(page.getByTestId('flamegraph')).toBeVisible();
});

test('the query details open by key and address, and scroll by key', async ({ page }) => {
  await open(page);
  await page.setViewportSize({ width: 700, height: 500 });
  await page.keyboard.press('e');
  const panel = page.getByRole('region', { name: 'Query details' });
  const details = panel.getByRole('group', { name: 'Details' });
  await expect(details).toBeFocused();
  await expect(panel.getByRole('table').first()).toBeVisible();
  await page.keyboard.press('End');
  await expect.poll(() => details.evaluate((element) => element.scrollTop)).toBeGreaterThan(0);
  expect(parameter(page, 'explain')).toBe('shown');
  await page.reload();
  await expect(panel.getByText(/answered at \d/)).toBeVisible();
});

test('query details that fail show the error, and keep the graph', async ({ page }) => {
  await page.route(`${METHOD}Select*`, async (route) => {
    if (route.request().headers()['x-pyrograph-explain'] !== 'true') return route.continue();
    return route.fulfill({ status: 503, json: { code: 'unavailable', message: 'starting' } });
  });
  await open(page);
  await page.keyboard.press('e');
  const panel = page.getByRole('region', { name: 'Query details' });
  await expect(panel.getByRole('alert')).toContainText('starting');
  await expect(page.getByTestId('flamegraph')).toBeVisible();
  await panel.getByRole('button', { name: 'Close' }).click();
  await expect(panel).toHaveCount(0);
  await expect(page.getByRole('contentinfo')).not.toContainText('starting');
});
