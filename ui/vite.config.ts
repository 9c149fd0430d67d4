// Build and development server of the page.
//
// Development: `PYROGRAPH_URL=http://localhost:4040 npm run dev` uses a real server; without it the
// mock API (tests/mock) answers.
import { defineConfig, type Plugin } from 'vite';
import { mockApi } from './tests/mock/api.ts';

const server = process.env['PYROGRAPH_URL'];
const publicPaths = ['/querier.v1.QuerierService', '/pyroscope', '/api', '/ingest', '/push.v1.PusherService'];

/** The policy that the server sends as a header; built in so that tests detect violations. */
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'";

function contentSecurityPolicy(): Plugin {
  return {
    name: 'content-security-policy',
    apply: 'build',
    transformIndexHtml: () => [
      { tag: 'meta', attrs: { 'http-equiv': 'Content-Security-Policy', content: policy }, injectTo: 'head-prepend' },
    ],
  };
}

export default defineConfig({
  plugins: [contentSecurityPolicy(), ...(server ? [] : [mockApi()])],
  worker: { format: 'es' },
  build: { target: 'es2023', modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
  server: server ? { proxy: Object.fromEntries(publicPaths.map((path) => [path, server])) } : {},
  test: { include: ['tests/unit/**/*.test.ts'] },
} as Parameters<typeof defineConfig>[0]);
