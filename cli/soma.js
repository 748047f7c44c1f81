#!/usr/bin/env node
// The command is TypeScript for Node 24. Under an older Node (the machine's own) it is handed to the repository's.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('./main.ts', import.meta.url));
const node = fileURLToPath(new URL('../node_modules/.bin/node', import.meta.url));
if (process.features.typescript) {
  await import('./main.ts');
} else if (existsSync(node)) {
  const { status } = spawnSync(node, [main, ...process.argv.slice(2)], { stdio: 'inherit' });
  process.exitCode = status ?? 130;
} else {
  console.error('error: soma needs Node 24\n next: make setup');
  process.exitCode = 1;
}
