// Prints the sizes of the built files, and fails if the scripts exceed their limit.
import { readdirSync, readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const LIMIT_KIB = 150;

const folder = new URL('../dist/assets/', import.meta.url);
let total = 0;
for (const name of readdirSync(folder).filter((file) => /\.(js|css)$/.test(file))) {
  const size = gzipSync(readFileSync(new URL(name, folder)), { level: 9 }).length / 1024;
  if (name.endsWith('.js')) total += size;
  console.log(`${size.toFixed(1).padStart(7)} KiB gzip  ${name}`);
}
console.log(`${total.toFixed(1).padStart(7)} KiB gzip  all scripts, limit ${LIMIT_KIB}`);
if (total > LIMIT_KIB) process.exit(1);
