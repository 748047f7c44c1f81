import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { sql } from 'kysely';
import pg from 'pg';
import { isolateTenants, isolationGaps, requireIsolation, TenantDatabase, withTenant } from './tenancy.ts';

interface Tables {
  note: { tenant: string; id: number; text: string };
}

describe('row-level security by tenant, on a real Postgres', () => {
  let postgres: TestPostgres;
  let pool: pg.Pool;
  let database: TenantDatabase<Tables>;

  before(async () => {
    postgres = await startPostgres();
    const admin = await postgres.connect('postgres');
    await admin.query(`create role owner login password 'owner'; create role reader login password 'reader'`);
    await admin.query('create database notes owner owner');
    await admin.end();
    pool = poolOf('owner', 2);
    database = new TenantDatabase<Tables>(pool);
    await sql`create table note (tenant text not null, id integer, text text, primary key (tenant, id))`.execute(
      database.untenanted,
    );
    await isolateTenants(database.untenanted, 'note');
    await sql`grant select on note to reader`.execute(database.untenanted);
    for (const tenant of ['acme', 'globex']) {
      await database
        .of(tenant)
        .insertInto('note')
        .values({ tenant, id: 1, text: `of ${tenant}` })
        .execute();
    }
  });

  after(async () => {
    await database.destroy();
    await postgres.stop();
  });

  function poolOf(user: string, max: number): pg.Pool {
    const { host, port, ca } = postgres.server;
    const made = new pg.Pool({ host, port, user, password: user, database: 'notes', max, ssl: { ca: ca ?? '' } });
    // The server may end an idle connection before the pool has closed it.
    return made.on('error', () => undefined);
  }

  const all = (tenant: string) => database.of(tenant).selectFrom('note').selectAll().execute();

  it('shows a tenant its own rows, however the WHERE is wrong', async () => {
    assert.deepEqual(await all('acme'), [{ tenant: 'acme', id: 1, text: 'of acme' }]);
    const wrong = database.of('acme').selectFrom('note').selectAll().where('tenant', '=', 'globex');
    assert.deepEqual(await wrong.execute(), []);
  });

  it('shows nothing where no tenant is set, also to the owner on a connection of its own', async () => {
    assert.deepEqual(await database.untenanted.selectFrom('note').selectAll().execute(), []);
    const client = await postgres.connect('notes', { username: 'owner', password: 'owner' });
    assert.deepEqual((await client.query('select * from note')).rows, []);
    await client.end();
  });

  it('refuses to write a row of another tenant, and changes or deletes none', async () => {
    const rows = database.of('acme');
    const insert = rows.insertInto('note').values({ tenant: 'globex', id: 2, text: 'planted' });
    await assert.rejects(insert.execute(), { code: '42501' });
    await assert.rejects(rows.updateTable('note').set({ tenant: 'globex' }).execute(), { code: '42501' });
    const stolen = await rows.updateTable('note').set({ text: 'x' }).where('tenant', '=', 'globex').executeTakeFirst();
    assert.equal(stolen.numUpdatedRows, 0n);
    const deleted = await rows.deleteFrom('note').where('tenant', '=', 'globex').executeTakeFirst();
    assert.equal(deleted.numDeletedRows, 0n);
    assert.deepEqual(await all('globex'), [{ tenant: 'globex', id: 1, text: 'of globex' }]);
  });

  it('keeps tenants apart on connections that they share, also when many ask at once', async () => {
    const tenants = Array.from({ length: 200 }, (_, index) => (index % 3 === 0 ? 'acme' : 'globex'));
    const seen = await Promise.all(tenants.map(all));
    assert.deepEqual(
      seen.map((rows) => rows.map(({ tenant }) => tenant)),
      tenants.map((tenant) => [tenant]),
    );
    assert.ok(pool.totalCount <= 2);
  });

  it('undoes all of a transaction that fails, and the connection goes on with its tenant', async () => {
    const failing = withTenant(database, 'acme', async (rows) => {
      await rows.insertInto('note').values({ tenant: 'acme', id: 9, text: 'undone' }).execute();
      throw new Error('stop');
    });
    await assert.rejects(failing, { message: 'stop' });
    assert.deepEqual((await all('acme')).length, 1);
    assert.deepEqual((await all('globex')).length, 1);
  });

  it('lets the owner alone mean every tenant', async () => {
    const rows = await database.platform.selectFrom('note').select('tenant').orderBy('tenant').execute();
    assert.deepEqual(rows, [{ tenant: 'acme' }, { tenant: 'globex' }]);
    const reader = new TenantDatabase<Tables>(poolOf('reader', 1));
    try {
      assert.deepEqual(await reader.platform.selectFrom('note').selectAll().execute(), []);
      assert.deepEqual(await reader.of('globex').selectFrom('note').select('id').execute(), [{ id: 1 }]);
      await assert.rejects(reader.of('globex').deleteFrom('note').execute(), { code: '42501' });
    } finally {
      await reader.destroy();
    }
  });

  it('refuses what is no name of a tenant', () => {
    for (const name of ['', '*', 'Acme', "a'; drop table note", '../acme', 'x'.repeat(64)]) {
      assert.throws(() => database.of(name), RangeError, name);
    }
  });

  it('finds each table that is not guarded, and only those', async () => {
    const db = database.untenanted;
    assert.deepEqual(await isolationGaps(db), []);
    await requireIsolation(db);
    await sql`create table open_note (tenant text)`.execute(db);
    await sql`create table loose_note (tenant text)`.execute(db);
    await isolateTenants(db, 'loose_note');
    await sql`alter table loose_note no force row level security`.execute(db);
    await sql`create table wide_note (tenant text)`.execute(db);
    await isolateTenants(db, 'wide_note');
    await sql`create policy everybody on wide_note for select using (true)`.execute(db);
    await sql`create table shut_note (tenant text)`.execute(db);
    await sql`alter table shut_note enable row level security, force row level security`.execute(db);
    assert.deepEqual(await isolationGaps(db), [
      { table: 'public.loose_note', problem: 'row level security is not forced on its owner' },
      { table: 'public.open_note', problem: 'row level security is off' },
      { table: 'public.shut_note', problem: 'it has no policy' },
      { table: 'public.wide_note', problem: 'policy everybody does not ask for the tenant of the connection' },
    ]);
    await assert.rejects(requireIsolation(db), /public\.open_note: row level security is off/);
  });
});
