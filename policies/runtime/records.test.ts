/** What becomes of the policy is recorded: a real engine on a real bundle, and the outbox of a real Postgres. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { readEvent } from '@somagent/events';
import { appendEvents, createLogger, outboxMigration } from '@somagent/kit';
import { Kysely, PostgresDialect } from 'kysely';
import { compileCorpus, opaPath } from '../bundle/corpus.ts';
import { folderShelf, publish } from '../bundle/publish.ts';
import { FolderSource, PolicyEngine, policyRecords } from './index.ts';

const log = createLogger({ service: 'test', level: 'silent' });
const skip = existsSync(opaPath()) ? false : `${opaPath()} is not built: run make toolchain`;
let postgres: TestPostgres;
let db: Kysely<{ outbox: { seq: string; value: Record<string, unknown> } }>;

before(async () => {
  postgres = await startPostgres();
  db = new Kysely({ dialect: new PostgresDialect({ pool: postgres.pool('postgres') }) });
});
after(async () => {
  await db.destroy();
  await postgres.stop();
});

const recorded = async () => {
  const rows = await db.selectFrom('outbox').select('value').orderBy('seq').execute();
  return rows.map(({ value }) => {
    const { type, data, tenant, actor } = readEvent('audit.control', value);
    assert.deepEqual([tenant, actor], [null, { kind: 'system', id: 'gateway', client: null }]);
    return { type, data };
  });
};

test('a bundle in force, one that is refused and the drift are recorded once, also after an outage', {
  skip,
}, async () => {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const publicKeyFile = join(postgres.folder, 'policy.pub');
  await writeFile(publicKeyFile, publicKey.export({ type: 'spki', format: 'pem' }));
  const shelf = folderShelf(join(postgres.folder, 'policy'));
  const { revision } = await publish(compileCorpus(), privateKey, shelf);
  const refusals: string[] = [];
  const store = (events: Parameters<typeof appendEvents>[1]) =>
    appendEvents(db, events).catch((error: Error) => {
      refusals.push(error.message);
      throw error;
    });
  const policy = new PolicyEngine({
    source: new FolderSource(join(postgres.folder, 'policy')),
    publicKeyFile,
    ...policyRecords({ service: 'gateway', store, log, pause: 10 }),
  });
  // There is no outbox yet: the store refuses.
  await policy.start();
  const planted = 'f'.repeat(64);
  const key = `bundles/${planted}.tar.gz`;
  await shelf.write(key, Buffer.from('not a bundle'));
  await shelf.write('current.json', Buffer.from(JSON.stringify({ revision: planted, key })));
  await policy.refresh();
  await policy.refresh();
  while (refusals.length === 0) await new Promise(setImmediate);
  await outboxMigration.up(db);
  const deadline = Date.now() + 10_000;
  while ((await recorded()).length < 3 && Date.now() < deadline)
    await new Promise((resolve) => setTimeout(resolve, 20));
  await policy.stop();
  const reason = policy.drift?.reason;
  assert.ok(reason !== undefined && reason.length > 0);
  assert.deepEqual(await recorded(), [
    { type: 'policy.loaded', data: { service: 'gateway', revision, previous: null } },
    { type: 'policy.drifted', data: { service: 'gateway', running: revision, signed: planted } },
    { type: 'policy.refused', data: { service: 'gateway', revision: planted, reason } },
  ]);
});

test('as many wait as fit while the store is away: the newest of each kind stay, and what is lost is told once', async () => {
  await db.deleteFrom('outbox').execute();
  await db.schema.alterTable('outbox').renameTo('away').execute();
  let refused = 0;
  const store = (events: Parameters<typeof appendEvents>[1]) =>
    appendEvents(db, events).catch((error: Error) => {
      refused += 1;
      throw error;
    });
  const { onSwap, onDrift } = policyRecords({ service: 'gateway', store, log, pause: 5, capacity: 4 });
  const revision = (index: number) => String(index).padStart(64, '0');
  const none = { reason: 'of this test', since: new Date().toISOString() };
  onDrift?.({ ...none, running: null, published: revision(0) });
  for (let index = 1; index <= 1000; index += 1) {
    onSwap?.(revision(index));
    if (index % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
  }
  while (refused < 3) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(await storedWithin(0), 0);
  await db.schema.alterTable('away').renameTo('outbox').execute();
  assert.equal(await storedWithin(4), 4);
  onSwap?.(revision(1001));
  assert.equal(await storedWithin(5), 5);
  const loaded = (index: number) => ({
    type: 'policy.loaded',
    data: { service: 'gateway', revision: revision(index), previous: revision(index - 1) },
  });
  assert.deepEqual(await recorded(), [
    // 1,002 events and one more came; 4 were kept.
    { type: 'policy.drifted', data: { service: 'gateway', running: null, signed: revision(0), dropped: 998 } },
    { type: 'policy.refused', data: { service: 'gateway', revision: revision(0), reason: none.reason } },
    loaded(999),
    loaded(1000),
    loaded(1001),
  ]);
  assert.throws(() => policyRecords({ service: 'gateway', store, log, capacity: 2 }), /give 3 or more/);
});

async function storedWithin(count: number): Promise<number> {
  const end = Date.now() + 10_000;
  for (;;) {
    const stored = await recorded().catch(() => []);
    if (stored.length >= count || Date.now() > end) return stored.length;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
