/** What the gateway does in the database of sessions, as the role that it has there. */
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { PostgresQuota, type VerdictRecord, verdictEvent } from '@somagent/governance';
import { appendEvents, createLogger, createPool, type PostgresConfig, TenantDatabase } from '@somagent/kit';
import type { Database } from '@somagent/orchestrator/database.ts';
import { migrate } from '@somagent/orchestrator/migrations.ts';
import { sql } from 'kysely';
import { SessionReader } from './reader.ts';
import { sessionFacts } from './session-facts.ts';

const log = createLogger({ service: 'test', level: 'silent' });
const mine = randomUUID();
const ofMyTeam = randomUUID();
const ofOthers = randomUUID();

describe('the gateway in the database of sessions', { timeout: 60_000 }, () => {
  let postgres: TestPostgres;
  let owner: TenantDatabase<Database>;
  let gateway: TenantDatabase<Database>;
  let reader: SessionReader;

  before(async () => {
    postgres = await startPostgres();
    const admin = await postgres.connect('postgres');
    const open = async (role: string) => {
      const password = randomBytes(16).toString('hex');
      await admin.query(`create role ${role} login password '${password}'`);
      const folder = join(postgres.folder, role);
      await mkdir(folder);
      await writeFile(join(folder, 'username'), role);
      await writeFile(join(folder, 'password'), password);
      const { host, port } = postgres.server;
      const config: PostgresConfig = {
        PGHOST: host,
        PGPORT: port,
        PGDATABASE: 'sessions',
        PG_CREDENTIALS_DIR: folder,
        PG_CA_FILE: postgres.caFile,
        PG_POOL_SIZE: 2,
      };
      return new TenantDatabase<Database>(createPool(config, log));
    };
    owner = await open('sessions');
    gateway = await open('sessions_gateway');
    await admin.query('create database sessions owner sessions');
    await admin.end();
    await migrate(owner.platform);
    const session = (tenant: string, id: string, subject: string, teams: string[]) =>
      owner
        .of(tenant)
        .insertInto('session')
        .values({ tenant, id, subject, teams, persona: null, status: 'open', close_reason: null, closed_at: null })
        .execute();
    await session('acme', mine, 'mary', ['blue']);
    await session('acme', ofMyTeam, 'mike', ['blue', 'green']);
    await session('acme', ofOthers, 'carl', ['red']);
    await session('globex', randomUUID(), 'mary', ['blue']);
    reader = new SessionReader(gateway);
  });
  after(async () => {
    await Promise.all([owner.destroy(), gateway.destroy()]);
    await postgres.stop();
  });

  const listed = async (viewer: { subject: string; teams: string[] } | null) =>
    (await reader.sessions('acme', viewer, 10)).map(({ id }) => id).sort();

  it('lists what is mine or of my teams; everything only for those who may see everything', async () => {
    assert.deepEqual(await listed({ subject: 'mary', teams: ['blue'] }), [mine, ofMyTeam].sort());
    assert.deepEqual(await listed({ subject: 'mary', teams: [] }), [mine]);
    assert.deepEqual(await listed({ subject: 'nobody', teams: [] }), []);
    assert.deepEqual(await listed(null), [mine, ofMyTeam, ofOthers].sort());
  });

  it('says whom a session belongs to as relations, and nothing of other tenants', async () => {
    const facts = sessionFacts(reader);
    const subject = { tenant: 'acme', subject: 'carl' };
    const object = `session:acme/${ofMyTeam}`;
    assert.deepEqual(await facts(subject, object), [
      { user: 'tenant:acme', relation: 'tenant', object },
      { user: 'user:acme/mike', relation: 'owner', object },
      { user: 'team:acme/blue', relation: 'team', object },
      { user: 'team:acme/green', relation: 'team', object },
    ]);
    assert.deepEqual(await facts({ tenant: 'globex', subject: 'mary' }, object), []);
    assert.deepEqual(await facts({ tenant: 'globex', subject: 'mary' }, `session:globex/${mine}`), []);
    assert.deepEqual(await facts(subject, 'team:acme/blue'), []);
    assert.deepEqual(await facts(subject, `session:acme/${randomUUID()}`), []);
  });

  it('counts requests and stores verdicts, and writes nothing else', async () => {
    const limits = [{ name: 'gateway', per: 'tenant', windowSeconds: 1_000_000_000, allowed: 2 }] as const;
    const quota = new PostgresQuota({ database: gateway, limits, log });
    const answers = [
      await quota.take('acme', 'mary'),
      await quota.take('acme', 'mary'),
      await quota.take('acme', 'mary'),
    ];
    assert.deepEqual(answers.slice(0, 2), [null, null]);
    assert.equal(answers[2]?.limit, 'at most 2 requests of a tenant in 1000000000 s');

    const verdict = { requestId: randomUUID(), tenant: 'acme' } as VerdictRecord;
    await appendEvents(gateway.untenanted, [verdictEvent(verdict)]);
    const { rows } = await sql<{ topic: string }>`select topic from outbox`.execute(owner.platform);
    assert.deepEqual(rows, [{ topic: 'verdict.decisions' }]);

    const close = sql`update session set status = 'closed' where tenant = 'acme'`.execute(gateway.of('acme'));
    await assert.rejects(close, /permission denied/);
    await assert.rejects(sql`select value from outbox`.execute(gateway.untenanted), /permission denied/);
  });
});
