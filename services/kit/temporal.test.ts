import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

/** A service that ends in order, as the real ones do, and says so. */
const service = `
  import { createLogger, endWhenRenewed, onShutdown } from '${new URL('index.ts', import.meta.url)}';
  const log = createLogger({ service: 'test', level: 'silent' });
  onShutdown(log, 1000, [{ name: 'drain', run: () => console.log('drained') }]);
  endWhenRenewed({ TEMPORAL_TLS_DIR: process.env.DIRECTORY }, log, 10);
  setInterval(() => {}, 1000);
  console.log('runs');
`;

test('a renewed client certificate ends the process in order, an unchanged one does not', {
  timeout: 30_000,
}, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'renewal-'));
  const certificate = join(directory, 'tls.crt');
  try {
    writeFileSync(certificate, 'old');
    const child = spawn(process.execPath, ['--input-type=module', '--eval', service], {
      env: { ...process.env, DIRECTORY: directory },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    await once(child.stdout, 'data');
    const early = await Promise.race([once(child, 'exit'), new Promise((resolve) => setTimeout(resolve, 6000))]);
    assert.equal(early, undefined, 'it ended although nothing was renewed');
    writeFileSync(certificate, 'renewed');
    const [code] = await once(child, 'exit');
    assert.equal(code, 0);
    assert.equal(said, 'runs\ndrained\n');
  } finally {
    rmSync(directory, { recursive: true });
  }
});
