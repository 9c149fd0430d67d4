// Browser tests: against PYROGRAPH_URL if set, or else against the built page with the mock API.
import { defineConfig } from '@playwright/test';

const server = process.env['PYROGRAPH_URL'];

export default defineConfig({
  testDir: 'tests/browser',
  outputDir: process.env['PYROGRAPH_UI_RESULTS'] ?? 'node_modules/.cache/browser-results',
  timeout: 30_000,
  workers: 1,
  reporter: [['list']],
  use: {
    baseURL: server ?? 'http://127.0.0.1:4173',
    viewport: { width: 1440, height: 900 },
    launchOptions: {
      executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    },
  },
  ...(server
    ? {}
    : {
        webServer: {
          command: 'npm run build && npm run preview -- --host 127.0.0.1 --port 4173 --strictPort',
          url: 'http://127.0.0.1:4173/',
          reuseExistingServer: true,
        },
      }),
});
