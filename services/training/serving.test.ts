import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';

const drill = fileURLToPath(new URL('testing/serving-drill.ts', import.meta.url));

/** Ray binds more than the loopback, so everything gets a network of its own; what runs in it ends with it. */
const apart = [
  ...['--net', '--pid', '--fork', '--kill-child', '--mount-proc'],
  ...['sh', '-c', 'ip link set lo up && exec "$@"', 'sh'],
];
// Postgres refuses to run as root, also as one that is root in a namespace only.
const identity = process.getuid?.() === 0 ? [] : ['--map-current-user', '--keep-caps'];

it('a promoted model is served to its tenant, and only what passed the gate and was not changed since', async () => {
  const child = spawn('unshare', [...identity, ...apart, process.execPath, drill], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const [code] = await once(child, 'exit');
  assert.equal(code, 0, 'a check of testing/serving-drill.ts failed: its output is above');
});
