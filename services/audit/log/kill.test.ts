import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { sql } from 'kysely';
import { CompactRange, leafHash } from '../merkle/index.ts';
import { startAuditDatabase, type TestAuditDatabase } from '../testing/database.ts';
import { verdictEvent } from '../testing/events.ts';
import { AuditLog } from './audit-log.ts';
import { leafOf } from './leaf.ts';

// More of both by hand: AUDIT_KILLS=50 AUDIT_EVENTS=100000 node --test services/audit/log/kill.test.ts
const kills = Number(process.env.AUDIT_KILLS ?? 3);
const count = Number(process.env.AUDIT_EVENTS ?? 1500);
const program = fileURLToPath(new URL('../testing/append.ts', import.meta.url));
let audit: TestAuditDatabase;
before(async () => {
  audit = await startAuditDatabase({ fsync: 'on', log_statement: 'none' });
});
after(() => audit.stop());

const events = Array.from({ length: count }, (_, place) => verdictEvent('acme', `request-${place}`).value);

const size = async () => (await new AuditLog(audit.database).position()).size;

function start(file: string): ChildProcess {
  const env = { ...process.env, ...Object.fromEntries(Object.entries(audit.config).map(([k, v]) => [k, String(v)])) };
  // Small transactions, so that there are many points to die at; and each start replays some of the end.
  const args = [program, file, String(randomInt(5, 60)), String(randomInt(0, 200))];
  return spawn(process.execPath, args, { env, stdio: ['ignore', 'ignore', 'inherit'] });
}

test(`killed ${kills} times in the middle of its work, the log has every event once, in order`, async () => {
  const file = join(audit.postgres.folder, 'events.ndjson');
  await writeFile(file, events.map((event) => `${JSON.stringify(event)}\n`).join(''));
  for (let kill = 1; kill <= kills; kill += 1) {
    const child = start(file);
    const exit = once(child, 'exit');
    const until = randomInt(Math.floor((count * (kill - 1)) / kills), Math.floor((count * kill) / kills));
    while (child.exitCode === null && (await size()) < until);
    child.kill('SIGKILL');
    await exit;
  }
  const last = start(file);
  assert.deepEqual(await once(last, 'exit'), [0, null]);
  const { rows } = await sql<{ event_id: string; leaf: string }>`
    select event_id, leaf from audit_leaf order by index`.execute(audit.database.platform);
  assert.deepEqual(
    rows.map(({ event_id }) => event_id),
    events.map(({ id }) => id),
  );
  const expected = new CompactRange();
  for (const event of events) expected.append(leafHash(Buffer.from(leafOf('verdict.decisions', event).text)));
  const head = await new AuditLog(audit.database).position();
  assert.deepEqual([head.size, head.root.toString('hex')], [count, expected.root().toString('hex')]);
  assert.deepEqual(head.offsets, { 'verdict.decisions/0': String(count) });
});
