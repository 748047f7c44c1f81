import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { event } from '@somagent/events';
import { appendEvents, requireIsolation, type TenantDatabase } from '@somagent/kit';
import { sql } from 'kysely';
import pg from 'pg';
import { type Database, openDatabase } from './database.ts';
import { migrate, readers } from './migrations.ts';
import { SessionStore } from './session-store.ts';

const attemptAt = (turnId: string, prompt: string) => ({
  turn: { turnId, prompt, receivedAt: Date.now() },
  number: 1,
  historyTurns: 6,
  events: [],
});

const denied = {
  tenant: 'globex',
  actor: { kind: 'user', id: 'gil', client: null },
  data: {
    requestId: 'r1',
    service: 'gateway',
    route: 'getSession',
    method: 'GET',
    path: '/v1/sessions/{id}',
    capability: 'session:read',
    resource: { type: 'session', id: null },
    allow: false,
    rule: 'soma.gateway.deny_relation',
    reasons: [] as string[],
    revision: null,
    latencyUs: 1,
    status: 404,
    input: null,
  },
} as const;

describe('the database of sessions keeps tenants apart', () => {
  let postgres: TestPostgres;
  let db: TenantDatabase<Database>;
  let store: SessionStore;
  const ids = { acme: randomUUID(), globex: randomUUID() };
  const key = (tenant: 'acme' | 'globex') => ({ tenant, sessionId: ids[tenant] });
  const turnId = randomUUID();

  const connect = (user: string): TenantDatabase<Database> => {
    const { host, port, ca } = postgres.server;
    const settings = { host, port, user, password: user, database: 'sessions', max: 2, ssl: { ca: ca ?? '' } };
    return openDatabase(new pg.Pool(settings).on('error', () => undefined));
  };

  before(async () => {
    postgres = await startPostgres();
    const admin = await postgres.connect('postgres');
    for (const role of ['sessions', ...Object.values(readers)]) {
      await admin.query(`create role ${role} login password '${role}'`);
    }
    await admin.query('create database sessions owner sessions');
    await admin.end();
    const inside = await postgres.connect('sessions');
    await inside.query('alter schema public owner to sessions');
    await inside.end();
    db = connect('sessions');
    await migrate(db.untenanted);
    store = new SessionStore(db);
    for (const tenant of ['acme', 'globex'] as const) {
      await store.open({ ...key(tenant), subject: `agent of ${tenant}`, teams: ['blue'], idleTimeout: 1000 });
      await store.beginTurn(key(tenant), attemptAt(turnId, `secret of ${tenant}`));
    }
  });

  after(async () => {
    await db.destroy();
    await postgres.stop();
  });

  it('has no table with rows of tenants that is not guarded, and finds one that is planted', async () => {
    await requireIsolation(db.untenanted);
    await sql`create table invoice (tenant text, amount integer)`.execute(db.untenanted);
    await assert.rejects(migrate(db.untenanted), /public\.invoice: row level security is off/);
    await sql`drop table invoice`.execute(db.untenanted);
    await sql`drop policy tenant_rows on turn`.execute(db.untenanted);
    await sql`drop policy platform_rows on turn`.execute(db.untenanted);
    await assert.rejects(requireIsolation(db.untenanted), /public\.turn: it has no policy/);
    await sql`drop schema public cascade`.execute(db.untenanted);
    await sql`create schema public`.execute(db.untenanted);
    await sql`grant usage on schema public to public`.execute(db.untenanted);
    await migrate(db.untenanted);
    for (const tenant of ['acme', 'globex'] as const) {
      await store.open({ ...key(tenant), subject: `agent of ${tenant}`, teams: ['blue'], idleTimeout: 1000 });
      await store.beginTurn(key(tenant), attemptAt(turnId, `secret of ${tenant}`));
    }
  });

  it('shows nothing where no tenant is set', async () => {
    for (const table of ['session', 'turn', 'session_event'] as const) {
      assert.deepEqual(await db.untenanted.selectFrom(table).selectAll().execute(), [], table);
    }
  });

  it('shows one tenant nothing of another without any WHERE, in each table', async () => {
    for (const table of ['session', 'turn', 'session_event'] as const) {
      const rows = await db.of('acme').selectFrom(table).select('tenant').execute();
      assert.ok(rows.length > 0 && rows.every(({ tenant }) => tenant === 'acme'), table);
    }
  });

  it('neither reads nor changes what another tenant has, with its very ids', async () => {
    const stolen = { tenant: 'acme', sessionId: ids.globex };
    await assert.rejects(store.beginTurn(stolen, attemptAt(randomUUID(), 'x')), {
      message: `session ${ids.globex} is not in the database`,
    });
    await assert.rejects(store.appendText(stolen, turnId, 1, 'x'), { name: 'Superseded' });
    await store.interrupt(stolen, turnId);
    await store.close({ ...stolen, reason: 'client' });
    const row = await db.of('globex').selectFrom('session').select('status').executeTakeFirstOrThrow();
    assert.equal(row.status, 'open');
    const turn = await db.of('globex').selectFrom('turn').select(['interrupted', 'answer']).executeTakeFirstOrThrow();
    assert.deepEqual(turn, { interrupted: false, answer: '' });
    const forged = sql`update session set tenant = 'acme' where id = ${ids.globex}`.execute(db.of('globex'));
    await assert.rejects(forged, { code: '42501' });
  });

  it('lets the gateway read one tenant at a time and write nothing', async () => {
    const gateway = connect(readers.gateway);
    try {
      const rows = await gateway.of('globex').selectFrom('turn').select('prompt').execute();
      assert.deepEqual(rows, [{ prompt: 'secret of globex' }]);
      assert.deepEqual(await gateway.platform.selectFrom('turn').select('prompt').execute(), []);
      await assert.rejects(gateway.of('globex').deleteFrom('turn').execute(), { code: '42501' });
      await assert.rejects(sql`select set_config('role', 'sessions', false)`.execute(gateway.of('globex')));
      const verdict = event('verdict.decisions', 'verdict.decided', denied);
      await appendEvents(gateway.untenanted, [verdict]);
      await assert.rejects(sql`select * from outbox`.execute(gateway.of('globex')), { code: '42501' });
      await assert.rejects(sql`delete from outbox`.execute(gateway.of('globex')), { code: '42501' });
    } finally {
      await gateway.destroy();
    }
  });

  it('lets the reconciliation of relations read who owns what, and no word of a conversation', async () => {
    const relations = connect(readers.relations);
    try {
      const rows = await relations.platform.selectFrom('session').select(['tenant', 'subject', 'teams']).execute();
      assert.deepEqual(
        rows.toSorted((a, b) => (a.tenant < b.tenant ? -1 : 1)),
        [
          { tenant: 'acme', subject: 'agent of acme', teams: ['blue'] },
          { tenant: 'globex', subject: 'agent of globex', teams: ['blue'] },
        ],
      );
      await assert.rejects(relations.platform.selectFrom('session').select('persona').execute(), { code: '42501' });
      await assert.rejects(relations.platform.selectFrom('turn').select('prompt').execute(), { code: '42501' });
      assert.deepEqual(await relations.untenanted.selectFrom('session').select('id').execute(), []);
    } finally {
      await relations.destroy();
    }
  });
});
