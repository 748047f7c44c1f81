import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Problem } from '@somagent/governance';
import { isolationGaps } from '@somagent/kit';
import { sql } from 'kysely';
import { Accounts } from './accounts.ts';
import { ApiKeys } from './api-keys.ts';
import { readSnapshot } from './control-feed.ts';
import { Halts } from './halts.ts';
import { parseKey } from './key-text.ts';
import { Ledger, type Origin } from './ledger.ts';
import { migrate } from './migrations.ts';
import { Revocations } from './revocations.ts';
import { Tenants } from './tenants.ts';
import { startIdentityDatabase, type TestIdentityDatabase } from './testing/database.ts';
import { Training } from './training.ts';

const person = (id: string): Origin => ({ actor: { kind: 'user', id, client: 'somagent-cli' }, requestId: 'r-1' });
const machine: Origin = { actor: { kind: 'service-account', id: 'robot', client: 'robot' }, requestId: 'r-2' };
const anna = person('anna');
const ben = person('ben');

const refusedAs = (type: string) => (error: unknown) => {
  assert.ok(error instanceof Problem, String(error));
  assert.equal(error.type, type);
  return true;
};

describe('the ledger, on a real Postgres', () => {
  let test: TestIdentityDatabase;
  let tenants: Tenants;
  let accounts: Accounts;
  let keys: ApiKeys;
  let training: Training;
  let halts: Halts;
  let revocations: Revocations;
  let ledger: Ledger;

  before(async () => {
    test = await startIdentityDatabase();
    ledger = new Ledger(test.database);
    tenants = new Tenants(ledger, test.database);
    accounts = new Accounts(ledger, test.database);
    keys = new ApiKeys(ledger, test.database);
    training = new Training(ledger, test.database);
    halts = new Halts(ledger);
    revocations = new Revocations(ledger, test.database);
    for (const name of ['acme', 'globex']) await tenants.put(anna, name, name.toUpperCase());
    await accounts.putTeam(anna, 'acme', 'blue');
    await accounts.put(anna, 'acme', account('u1', 'mary', ['member'], ['blue']));
  });
  after(() => test.stop());
  beforeEach(async () => void (await test.events()));

  const account = (id: string, username: string, roles = ['member'], teams: string[] = []) => ({
    ...{ id, kind: 'user' as const, username, email: null, roles, teams },
  });
  const types = async () => (await test.events()).map(({ type }) => type);
  const snapshot = () => readSnapshot(test.database);

  it('settles an account one replica after the other, each by the newest standing', async () => {
    const other = new Accounts(ledger, test.database);
    const elsewhere: boolean[] = [];
    const begun = Promise.withResolvers<void>();
    const slow = Promise.withResolvers<void>();
    await accounts.suspend(anna, 'acme', 'u1', 'of this test');
    const first = accounts.settle('u1', async ({ enabled }) => {
      begun.resolve();
      await slow.promise;
      elsewhere.push(enabled);
    });
    await begun.promise;
    await other.restore(anna, 'acme', 'u1', 'of this test');
    const second = other.settle('u1', async ({ enabled }) => elsewhere.push(enabled));
    // Another account is not held up.
    assert.equal(await other.settle('nobody', async () => 'settled'), undefined);
    assert.deepEqual(elsewhere, []);
    slow.resolve();
    await Promise.all([first, second]);
    assert.deepEqual(elsewhere, [false, true]);
  });

  it('isolates every table that has a tenant, and migrates again without effect', async () => {
    assert.deepEqual(await isolationGaps(test.database.untenanted), []);
    assert.deepEqual(await migrate(test.database.untenanted), []);
  });

  it('creates a tenant once, with one audit event and one change event', async () => {
    await tenants.put(anna, 'initech', 'Initech');
    const [audit, change, ...more] = await test.events();
    assert.deepEqual(more, []);
    assert.deepEqual(audit, {
      topic: 'audit.identity',
      key: 'initech/initech',
      type: 'tenant.created',
      tenant: 'initech',
      actor: 'anna',
      data: { name: 'initech', displayName: 'Initech' },
    });
    assert.deepEqual(change?.data, { name: 'initech', displayName: 'Initech', suspended: false });
    await tenants.put(ben, 'initech', 'Initech');
    assert.deepEqual(await test.events(), []);
    await tenants.put(ben, 'initech', 'Initech GmbH');
    assert.deepEqual(await types(), ['tenant.updated', 'tenant.put']);
  });

  it('has no change without its event: when the outbox refuses, nothing has happened', async () => {
    await sql`alter table outbox add constraint broken check (topic = 'none')`.execute(test.database.untenanted);
    const { revision } = await snapshot();
    await assert.rejects(tenants.suspend(anna, 'acme', 'fraud'), /broken/);
    await assert.rejects(halts.halt(anna, null, 'alarm'), /broken/);
    await sql`alter table outbox drop constraint broken`.execute(test.database.untenanted);
    assert.equal((await tenants.get('acme')).standing, 'active');
    assert.equal((await snapshot()).revision, revision);
  });

  it('suspends and restores a tenant, each recorded exactly once however often it is asked', async () => {
    const before = await snapshot();
    await Promise.all([1, 2, 3, 4].map(() => tenants.suspend(anna, 'acme', 'unpaid')));
    assert.deepEqual(await types(), ['tenant.suspended', 'tenant.put']);
    const during = await snapshot();
    assert.deepEqual(during.suspended.tenants, ['acme']);
    assert.ok(during.revision > before.revision);
    await tenants.restore(ben, 'acme', 'paid');
    await tenants.restore(ben, 'acme', 'paid');
    assert.deepEqual(await types(), ['tenant.restored', 'tenant.put']);
    assert.deepEqual((await snapshot()).suspended.tenants, []);
    await assert.rejects(tenants.suspend(anna, 'nobody', 'x'), refusedAs('tenant-unknown'));
  });

  it('suspends and restores a user', async () => {
    await accounts.suspend(anna, 'acme', 'u1', 'left');
    await accounts.suspend(anna, 'acme', 'u1', 'left');
    assert.deepEqual(await types(), ['user.suspended', 'user.put']);
    assert.deepEqual((await snapshot()).suspended.users, ['acme/u1']);
    // The account of another tenant does not exist for this one.
    await assert.rejects(accounts.suspend(anna, 'globex', 'u1', 'x'), refusedAs('not-found'));
    await accounts.restore(anna, 'acme', 'u1', 'back');
    assert.deepEqual((await snapshot()).suspended.users, []);
  });

  it('gives only roles of a tenant and teams that exist', async () => {
    await assert.rejects(accounts.put(anna, 'acme', account('u2', 'max', ['operator'])), refusedAs('role-unknown'));
    await assert.rejects(accounts.put(anna, 'acme', account('u2', 'max', [], ['red'])), refusedAs('team-unknown'));
    assert.deepEqual(await test.events(), []);
    await assert.rejects(accounts.removeTeam(anna, 'acme', 'blue'), refusedAs('team-in-use'));
    await accounts.put(anna, 'acme', account('u1', 'mary', ['member', 'auditor'], ['blue']));
    const [audit] = await test.events();
    assert.deepEqual(audit?.data, {
      ...{ userId: 'u1', username: 'mary', changed: ['roles'] },
      ...{ roles: ['auditor', 'member'], teams: ['blue'] },
    });
  });

  it('takes over no account of another tenant', async () => {
    await assert.rejects(accounts.put(anna, 'globex', account('u1', 'mary')), refusedAs('not-found'));
    assert.deepEqual(
      (await accounts.list('acme', 'user', 10)).map(({ username }) => username),
      ['mary'],
    );
    assert.deepEqual(await accounts.list('globex', 'user', 10), []);
  });

  it('stops a tenant or everything, keeps the one apart from the other, and undoes it', async () => {
    assert.equal(await halts.halt(anna, 'acme', 'runaway'), true);
    assert.equal(await halts.halt(anna, 'acme', 'runaway'), false);
    assert.equal(await halts.halt(anna, null, 'fire'), true);
    assert.deepEqual((await snapshot()).halted, { all: true, tenants: ['acme'] });
    assert.equal(await halts.resume(anna, null, 'out'), true);
    assert.deepEqual((await snapshot()).halted, { all: false, tenants: ['acme'] });
    assert.equal(await halts.resume(anna, 'acme', 'mended'), true);
    const events = await test.events();
    assert.deepEqual(
      events.map(({ type, tenant, data }) => [type, tenant, data.scope]),
      [
        ['control.halted', 'acme', 'tenant'],
        ['control.halted', null, 'all'],
        ['control.resumed', null, 'all'],
        ['control.resumed', 'acme', 'tenant'],
      ],
    );
    assert.equal((await tenants.get('globex')).halted, false);
  });

  describe('training mode', () => {
    it('is locked by default and needs two people', async () => {
      assert.deepEqual(await training.get('acme'), { training: 'locked', proposal: null });
      const proposal = await training.propose(anna, 'acme', 'new data', 3600);
      assert.equal((await training.propose(anna, 'acme', 'new data', 3600)).id, proposal.id);
      await assert.rejects(training.approve(anna, 'acme', proposal.id), refusedAs('second-person'));
      assert.equal((await tenants.get('acme')).training, 'locked');
      assert.deepEqual((await snapshot()).training.unlocked, []);
      await training.approve(ben, 'acme', proposal.id);
      await training.approve(ben, 'acme', proposal.id);
      assert.deepEqual((await snapshot()).training.unlocked, ['acme']);
      await training.lock(anna, 'acme', 'done');
      await training.lock(anna, 'acme', 'done');
      assert.deepEqual((await snapshot()).training.unlocked, []);
      assert.deepEqual(await types(), ['training.unlock-proposed', 'training.unlocked', 'training.locked']);
    });

    it('is no matter of machines', async () => {
      await assert.rejects(training.propose(machine, 'acme', 'x', 60), refusedAs('not-a-person'));
      const proposal = await training.propose(anna, 'acme', 'x', 60);
      await assert.rejects(training.approve(machine, 'acme', proposal.id), refusedAs('not-a-person'));
      const key: Origin = { ...machine, actor: { ...machine.actor, kind: 'api-key' } };
      await assert.rejects(training.approve(key, 'acme', proposal.id), refusedAs('not-a-person'));
      await training.lock(machine, 'acme', 'locking needs one');
    });

    it('lets nobody approve what has run out, was withdrawn or is of another tenant', async () => {
      const late = await training.propose(anna, 'acme', 'late', 0.02);
      await sleep(30);
      assert.equal((await training.get('acme')).proposal, null);
      await assert.rejects(training.approve(ben, 'acme', late.id), refusedAs('proposal-closed'));
      assert.equal(await training.expireAll(), 1);
      assert.equal(await training.expireAll(), 0);
      const withdrawn = await training.propose(anna, 'acme', 'again', 3600);
      await assert.rejects(training.propose(ben, 'acme', 'mine', 3600), refusedAs('proposal-open'));
      await assert.rejects(training.approve(ben, 'globex', withdrawn.id), refusedAs('not-found'));
      await training.lock(ben, 'acme', 'no');
      await assert.rejects(training.approve(ben, 'acme', withdrawn.id), refusedAs('proposal-closed'));
      assert.deepEqual((await snapshot()).training.unlocked, []);
    });

    it('is guarded by the database itself against a code that forgets', async () => {
      const proposal = await training.propose(anna, 'acme', 'x', 3600);
      const cheat = test.database
        .of('acme')
        .updateTable('training_proposal')
        .set({ status: 'approved', decided_by: 'anna' })
        .where('id', '=', proposal.id);
      await assert.rejects(cheat.execute(), /training_proposal_check/);
      await training.lock(anna, 'acme', 'x');
    });
  });

  describe('API keys', () => {
    const wish = { owner: 'u1', name: 'ci', scopes: ['session:read'], days: 30 };

    it('are shown once, verified by their hash and nowhere stored', async () => {
      const { key, secret } = await keys.create(anna, 'acme', wish, undefined);
      assert.match(secret, /^soma_[0-9A-Za-z]{22}_[0-9A-Za-z]{43}$/);
      const holder = await keys.verify(secret);
      assert.deepEqual(holder && { ...holder, expiresAt: '' }, {
        ...{ keyId: key.id, tenant: 'acme', subject: 'u1', roles: ['auditor', 'member'], teams: ['blue'] },
        ...{ scopes: ['session:read'], expiresAt: '' },
      });
      const dump = await test.postgres.client('pg_dump', ['--data-only', 'identity']);
      assert.equal(dump.includes(key.id), true);
      assert.equal(dump.includes(parseKey(secret)?.secret ?? '?'), false);
      const other = secret.endsWith('a') ? `${secret.slice(0, -1)}b` : `${secret.slice(0, -1)}a`;
      assert.equal(await keys.verify(other), null);
      assert.equal(await keys.verify('soma_x_y'), null);
    });

    it('are made once for one idempotency key', async () => {
      await keys.create(anna, 'acme', wish, 'k1');
      await assert.rejects(keys.create(anna, 'acme', wish, 'k1'), refusedAs('key-exists'));
      await keys.create(ben, 'acme', wish, 'k1');
      assert.deepEqual(await types(), ['api-key.created', 'api-key.created']);
    });

    it('stop at once when they are revoked, when they expire, and with their owner or tenant', async () => {
      const { key, secret } = await keys.create(anna, 'acme', wish, undefined);
      await assert.rejects(keys.revoke(anna, 'globex', key.id, 'x'), refusedAs('not-found'));
      await accounts.suspend(anna, 'acme', 'u1', 'x');
      assert.equal(await keys.verify(secret), null);
      await accounts.restore(anna, 'acme', 'u1', 'x');
      await tenants.suspend(anna, 'acme', 'x');
      assert.equal(await keys.verify(secret), null);
      await tenants.restore(anna, 'acme', 'x');
      assert.equal((await keys.verify(secret))?.keyId, key.id);
      await test.events();
      await keys.revoke(anna, 'acme', key.id, 'leaked');
      await keys.revoke(anna, 'acme', key.id, 'leaked');
      assert.equal(await keys.verify(secret), null);
      assert.deepEqual((await snapshot()).revoked.keys, [key.id]);
      assert.deepEqual(await types(), ['api-key.revoked', 'credential.revoked']);
      const brief = await keys.create(anna, 'acme', { ...wish, days: 0 }, undefined);
      assert.equal(await keys.verify(brief.secret), null);
    });

    it('go with their owner', async () => {
      await accounts.put(anna, 'acme', account('u9', 'gone'));
      const { key, secret } = await keys.create(anna, 'acme', { ...wish, owner: 'u9' }, undefined);
      await test.events();
      await accounts.remove(anna, 'acme', 'user', 'u9');
      await accounts.remove(anna, 'acme', 'user', 'u9');
      assert.equal(await keys.verify(secret), null);
      assert.equal((await snapshot()).revoked.keys.includes(key.id), true);
      assert.deepEqual(await types(), ['api-key.revoked', 'credential.revoked', 'user.removed', 'user.removed']);
    });
  });

  it('revokes a session once and forgets it when its tokens have expired', async () => {
    assert.equal(await revocations.revoke(anna, 'acme', 'session', 's1', 'stolen'), true);
    assert.equal(await revocations.revoke(anna, 'acme', 'session', 's1', 'stolen'), false);
    assert.deepEqual(await types(), ['credential.revoked']);
    assert.deepEqual((await snapshot()).revoked.sessions, ['s1']);
    const past = sql<Date>`clock_timestamp() - interval '1 second'`;
    await test.database.platform.updateTable('revocation').set({ expires_at: past }).where('id', '=', 's1').execute();
    assert.deepEqual((await snapshot()).revoked.sessions, []);
    assert.equal(await revocations.prune(), 1);
  });

  it('counts on from the clock, so that a restored backup never repeats a revision', async () => {
    const { revision } = await snapshot();
    await sql`update control set revision = 5`.execute(test.database.untenanted);
    await halts.halt(anna, null, 'x');
    await halts.resume(anna, null, 'x');
    assert.ok((await snapshot()).revision > revision);
  });
});
