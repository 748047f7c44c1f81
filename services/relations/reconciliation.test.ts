import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { type OutgoingEvent, readEvent } from '@somagent/events';
import { Accounts } from '@somagent/identity/accounts.ts';
import { Ledger, ownWork } from '@somagent/identity/ledger.ts';
import { Tenants } from '@somagent/identity/tenants.ts';
import { TestService } from '@somagent/identity/testing/service.ts';
import { createLogger, createPool, type PostgresConfig, type TenantDatabase } from '@somagent/kit';
import { openDatabase, type Database as SessionsDatabase } from '@somagent/orchestrator/database.ts';
import { migrate, readers } from '@somagent/orchestrator/migrations.ts';
import { SessionStore } from '@somagent/orchestrator/session-store.ts';
import { sql } from 'kysely';
import { IdentityDirectory } from './directory.ts';
import { migrateOpenFga } from './migrate.ts';
import { repairEvents } from './parts.ts';
import { type Difference, describeDifference, Reconciliation } from './reconciliation.ts';
import { StoredSessions } from './sessions.ts';
import { ensureModel, type ModelLocation } from './store.ts';
import { Synchronization } from './sync.ts';
import { hasOpenFga, openFgaProgram, startOpenFga, type TestOpenFga } from './testing/openfga.ts';
import { TupleStore } from './tuple-store.ts';
import { objectOf, type Tuple, userOf } from './tuples.ts';
import { TupleWatch } from './watch.ts';

const log = createLogger({ service: 'relations', level: 'silent' });
const origin = ownWork('test');
const ids = { ada: randomUUID(), bob: randomUUID(), carol: randomUUID(), scout: randomUUID(), gil: randomUUID() };
const mine = randomUUID();
const session = objectOf('session', 'acme', mine);
const user = (name: keyof typeof ids, tenant = 'acme') => userOf({ tenant, subject: ids[name] });
const fact = (subject: string, relation: string, object: string): Tuple => ({ user: subject, relation, object });

describe('relations and their sources, all of them real', { skip: !hasOpenFga() && 'OpenFGA is not built' }, () => {
  let identity: TestService;
  let postgres: TestPostgres;
  let openfga: TestOpenFga;
  let at: ModelLocation;
  let store: TupleStore;
  let directory: IdentityDirectory;
  let url: string;
  let sessionsDb: TenantDatabase<SessionsDatabase>;
  let sessions: StoredSessions;
  let accounts: Accounts;
  let tenants: Tenants;
  const recorded: Difference[] = [];
  const record = async (differences: readonly Difference[]) => void recorded.push(...differences);

  before(async () => {
    identity = await TestService.start();
    postgres = identity.database.postgres;
    ({ url } = await identity.replica());
    directory = new IdentityDirectory({
      url,
      caFile: identity.caFile,
      tokenFile: await identity.workloadFile('relations'),
    });
    const database = await databaseOf('openfga', 'openfga');
    await migrateOpenFga({ ...database, OPENFGA_PROGRAM: openFgaProgram() }, log);
    openfga = await startOpenFga(
      `postgres://openfga:openfga@127.0.0.1:${postgres.server.port}/openfga?sslmode=verify-full&sslrootcert=${postgres.caFile}`,
    );
    at = await ensureModel(openfga.client);
    store = new TupleStore(openfga.client, at);
    sessionsDb = openDatabase(createPool(await databaseOf('sessions', 'sessions', Object.values(readers)), log));
    await migrate(sessionsDb.untenanted);
    sessions = new StoredSessions(createPool(await credentialsOf('sessions', readers.relations), log));
    const ledger = new Ledger(identity.database.database);
    [accounts, tenants] = [
      new Accounts(ledger, identity.database.database),
      new Tenants(ledger, identity.database.database),
    ];
    await populate();
  });

  after(async () => {
    await sessions?.close();
    await sessionsDb?.destroy();
    await openfga?.stop();
    await identity?.stop();
  });

  /** A database with its owner, whose password is its name. */
  async function databaseOf(name: string, owner: string, others: readonly string[] = []): Promise<PostgresConfig> {
    const admin = await postgres.connect('postgres');
    for (const role of [owner, ...others]) await admin.query(`create role ${role} login password '${role}'`);
    await admin.query(`create database ${name} owner ${owner}`);
    await admin.end();
    return credentialsOf(name, owner);
  }

  async function credentialsOf(database: string, role: string): Promise<PostgresConfig> {
    const folder = join(postgres.folder, `credentials-${role}`);
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'username'), role);
    await writeFile(join(folder, 'password'), role);
    return {
      PGHOST: '127.0.0.1',
      PGPORT: postgres.server.port,
      PGDATABASE: database,
      PG_CREDENTIALS_DIR: folder,
      PG_CA_FILE: postgres.caFile,
      PG_POOL_SIZE: 2,
    };
  }

  async function populate(): Promise<void> {
    for (const tenant of ['acme', 'globex']) await tenants.put(origin, tenant, tenant);
    for (const team of ['blue', 'red']) await accounts.putTeam(origin, 'acme', team);
    const put = (name: keyof typeof ids, roles: string[], teams: string[], kind: 'user' | 'service-account' = 'user') =>
      accounts.put(origin, name === 'gil' ? 'globex' : 'acme', {
        id: ids[name],
        kind,
        username: kind === 'user' ? name : `acme-${name}`,
        email: null,
        roles,
        teams,
      });
    await put('ada', ['member'], ['blue']);
    await put('bob', ['member'], ['red']);
    await put('carol', ['member', 'tenant-admin'], []);
    await put('scout', ['agent'], ['blue'], 'service-account');
    await put('gil', ['member', 'auditor'], []);
    const key = { tenant: 'acme', sessionId: mine, subject: ids.ada, teams: ['blue'], idleTimeout: 1000 };
    await new SessionStore(sessionsDb).open(key);
  }

  const reconciliation = () => new Reconciliation({ store, directory, sessions, record });
  const holds = (subject: string, relation: string, object: string) =>
    openfga.client.check(at.store, at.model, { tuple: fact(subject, relation, object) });
  const lines = (differences: readonly Difference[]) =>
    differences.map(({ kind, tuple }) => `${kind}: ${tuple.user} ${tuple.relation} ${tuple.object}`).toSorted();
  /** As somebody does who has the key, past this service. */
  const directly = (writes: readonly Tuple[], deletes: readonly Tuple[] = []) =>
    openfga.client.write(at.store, at.model, writes, deletes);

  it('seeds an empty store from the tenants, accounts and sessions that there are', async () => {
    const { added, removed, differences } = await reconciliation().repair();
    assert.equal(removed, 0);
    assert.equal(added, differences.length);
    assert.equal(await holds(user('ada'), 'can_use', session), true);
    assert.equal(await holds(user('bob'), 'can_view', session), false);
    assert.equal(await holds(user('carol'), 'can_view', session), true);
    assert.equal(await holds(user('scout'), 'can_use', objectOf('persona', 'acme', 'acme-scout')), true);
    assert.equal(await holds(user('gil', 'globex'), 'can_audit', 'tenant:globex'), true);
    assert.equal(await holds(user('gil', 'globex'), 'can_view', session), false);
    const second = await reconciliation().repair();
    assert.deepEqual(second.differences, []);
    assert.equal(second.tuples, added);
  });

  it('finds and repairs what is missing, extra and wrong, and leaves grants alone; a second run is clean', async () => {
    const grant = fact(user('bob'), 'grantee', 'tool:acme/shell');
    const missing = [fact(user('ada'), 'owner', session), fact(user('bob'), 'member', 'team:acme/red')];
    const wrong = fact(user('bob'), 'owner', session);
    const extra = [
      fact(user('bob'), 'admin', 'tenant:acme'),
      fact(user('bob'), 'member', 'team:acme/blue'),
      fact('tenant:acme', 'tenant', objectOf('session', 'acme', randomUUID())),
      fact(user('gil', 'globex'), 'member', 'tenant:acme'),
      fact('tenant:nowhere', 'tenant', 'team:nowhere/x'),
      fact('user:acme/x', 'grantee', 'tool:globex/shell'),
    ];
    await directly([grant, wrong, ...extra], missing);
    const reported = await reconciliation().report();
    const expected = [
      ...missing.map((tuple) => `missing: ${tuple.user} ${tuple.relation} ${tuple.object}`),
      `wrong: ${wrong.user} owner ${session}`,
      ...extra.map((tuple) => `extra: ${tuple.user} ${tuple.relation} ${tuple.object}`),
    ].toSorted();
    assert.deepEqual(lines(reported.differences), expected);
    assert.deepEqual(lines((await reconciliation().report()).differences), expected, 'a report changes nothing');
    recorded.length = 0;
    const repaired = await reconciliation().repair();
    assert.deepEqual(lines(repaired.differences), expected);
    assert.deepEqual(lines(recorded), expected, 'what is repaired is on record before');
    assert.deepEqual([repaired.added, repaired.removed], [missing.length, extra.length + 1]);
    assert.deepEqual((await reconciliation().report()).differences, []);
    assert.equal(await holds(user('ada'), 'can_use', session), true);
    assert.equal(await holds(user('bob'), 'can_manage', 'tenant:acme'), false);
    assert.equal((await store.find({ object: 'tool:acme/shell' })).length, 1);
  });

  it('records repairs by tenant, with a key that Kafka admits', () => {
    const differences: Difference[] = [
      { kind: 'missing', tuple: fact(user('ada'), 'owner', session), reason: 'x' },
      { kind: 'extra', tuple: fact(user('gil', 'globex'), 'member', 'tenant:globex'), reason: 'y' },
    ];
    const events = repairEvents(differences);
    assert.deepEqual(
      events.map(({ key }) => key),
      ['acme/relations', 'globex/relations'],
    );
    const [first] = events.map(({ value }) => readEvent('audit.control', JSON.parse(value)));
    assert.deepEqual(first?.data, {
      added: 1,
      removed: 0,
      differences: [describeDifference(differences[0] as Difference)],
    });
  });

  /** What the outboxes of the sources owe Kafka, as the consumer gets it. */
  async function owed() {
    const take = sql<{ topic: string; key: string; value: OutgoingEvent['value'] }>`
      with taken as (delete from outbox where topic in ('identity.changes', 'session.lifecycle') returning *)
      select topic, key, value from taken order by seq`;
    const rows = [
      ...(await take.execute(identity.database.database.untenanted)).rows,
      ...(await take.execute(sessionsDb.untenanted)).rows,
    ];
    return rows.map(({ topic, key, value }, offset) => ({
      topic,
      key,
      partition: 0,
      offset: BigInt(offset),
      value: Buffer.from(JSON.stringify(value)),
      headers: new Map<string, string>(),
    }));
  }

  it('follows every event: teams, roles, suspension, removal, sessions', async () => {
    const sync = new Synchronization(store, log);
    await sync.apply(await owed());
    assert.deepEqual((await reconciliation().report()).differences, [], 'the events of the beginning change nothing');

    const blue = {
      id: ids.bob,
      kind: 'user',
      username: 'bob',
      email: null,
      roles: ['member'],
      teams: ['blue'],
    } as const;
    await accounts.put(origin, 'acme', blue);
    const other = randomUUID();
    const opened = { tenant: 'acme', sessionId: other, subject: ids.carol, teams: ['red'], idleTimeout: 1000 };
    await new SessionStore(sessionsDb).open(opened);
    const messages = await owed();
    await sync.apply(messages);
    assert.equal(await holds(user('bob'), 'can_use', session), true);
    assert.equal(await holds(user('carol'), 'can_use', objectOf('session', 'acme', other)), true);
    await sync.apply(messages);
    assert.deepEqual((await reconciliation().report()).differences, [], 'events that come twice change nothing');

    const forged = messages.map((message) => ({ ...message, key: message.key.replace('acme/', 'globex/') }));
    await directly([], [fact(user('bob'), 'member', 'team:acme/blue')]);
    await sync.apply(forged);
    assert.equal(await holds(user('bob'), 'can_use', session), false, 'a key of another tenant carries nothing');
    await sync.apply(messages);
    assert.equal(await holds(user('bob'), 'can_use', session), true);

    await accounts.suspend(origin, 'acme', ids.bob, 'test');
    await sync.apply(await owed());
    assert.equal(await holds(user('bob'), 'can_view', session), false);
    await directly([fact(user('ada'), 'grantee', 'tool:acme/shell')]);
    await accounts.remove(origin, 'acme', 'user', ids.ada);
    await sync.apply(await owed());
    assert.equal(await holds(user('ada'), 'can_use', session), false);
    assert.deepEqual(await store.find({ user: user('ada'), object: 'tool:' }), []);
    assert.deepEqual((await reconciliation().report()).differences, []);
  });

  it('undoes at once what is changed in OpenFGA past this service, and only that', async () => {
    const watch = new TupleWatch({ store, directory, sessions, record, log });
    const start = new Date(Date.now() - 5000);
    await watch.look(start);
    const gone = fact(user('carol'), 'admin', 'tenant:acme');
    const planted = [fact(user('scout'), 'admin', 'tenant:acme'), fact(user('gil', 'globex'), 'owner', session)];
    const granted = fact(user('carol'), 'grantee', 'tool:acme/shell');
    await directly([...planted, granted], [gone]);
    recorded.length = 0;
    const found = await watch.look(start);
    assert.deepEqual(
      lines(found),
      [
        `extra: ${user('gil', 'globex')} owner ${session}`,
        `extra: ${user('scout')} admin tenant:acme`,
        `missing: ${user('carol')} admin tenant:acme`,
      ].toSorted(),
    );
    assert.deepEqual(lines(recorded), lines(found));
    assert.deepEqual(await watch.look(start), [], 'its own repairs, and what it has judged, are no news');
    assert.deepEqual((await reconciliation().report()).differences, []);
    assert.equal(await holds(user('carol'), 'can_use', 'tool:acme/shell'), false, 'the tool has no tenant');
  });

  it('says that the identity service is away instead of deleting what it does not know', async () => {
    const away = new IdentityDirectory({
      url: 'https://127.0.0.1:1',
      caFile: identity.caFile,
      tokenFile: await identity.workloadFile('relations'),
    });
    const blind = new Reconciliation({ store, directory: away, sessions, record });
    await assert.rejects(blind.repair(), /the identity service does not answer/);
    const stranger = await identity.workloadFile('stranger');
    const refused = new IdentityDirectory({ url, caFile: identity.caFile, tokenFile: stranger });
    await assert.rejects(refused.tenants(), /answers 40[13] to \/v1\/tenants/);
    assert.deepEqual((await reconciliation().report()).differences, []);
  });

  it('migrates again without a change, also twice at once, and after a kill left an index half built', async () => {
    const database = { ...(await credentialsOf('openfga', 'openfga')), OPENFGA_PROGRAM: openFgaProgram() };
    await Promise.all([migrateOpenFga(database, log), migrateOpenFga(database, log)]);
    const admin = await postgres.connect('openfga');
    await admin.query(`delete from goose_db_version where version_id = 6`);
    await admin.query(`update pg_index set indisvalid = false where indexrelid = 'idx_user_lookup'::regclass`);
    await migrateOpenFga(database, log);
    const { rows } = await admin.query(
      `select indisvalid from pg_index where indexrelid = 'idx_user_lookup'::regclass`,
    );
    await admin.end();
    assert.deepEqual(rows, [{ indisvalid: true }]);
    assert.deepEqual((await reconciliation().report()).differences, []);
  });
});
