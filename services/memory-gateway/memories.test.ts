import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { isolationGaps } from '@somagent/kit';
import { sql } from 'kysely';
import { keywordSearch } from './keywords.ts';
import { AlreadyForgotten, contentHash, Memories, sourcedId } from './memories.ts';
import type { Scope, Visibility } from './scope.ts';
import { by, memoryOf, startMemoryDatabase, type TestMemoryDatabase } from './testing/database.ts';

describe('memories in Postgres', () => {
  let test: TestMemoryDatabase;
  let memories: Memories;
  const scopeOf = (visible: Visibility, tenant = 'acme'): Scope => ({ tenant, visible, filter: {} });
  const textsOf = async (scope: Scope) => (await memories.page(scope, undefined, 100)).map(({ text }) => text).sort();

  before(async () => {
    test = await startMemoryDatabase();
    memories = new Memories(test.database);
  });
  after(() => test.stop());

  it('stores a memory with its event and its task, all or nothing', async () => {
    const memory = memoryOf('The dog of the house is called Bruno', { team: 'blue', importance: 0.9 });
    const { memory: stored, created } = await memories.store(memory, by);
    assert.equal(created, true);
    assert.deepEqual(
      { ...stored, createdAt: null },
      {
        id: memory.id,
        owner: 'ada',
        team: 'blue',
        persona: null,
        sessionId: null,
        kind: 'semantic',
        text: memory.text,
        importance: 0.9,
        seen: 1,
        createdAt: null,
        expiresAt: null,
      },
    );
    assert.deepEqual(await test.events(), [
      {
        topic: 'audit.memory',
        type: 'memory.stored',
        tenant: 'acme',
        actor: 'ada',
        data: {
          memoryId: memory.id,
          owner: 'ada',
          team: 'blue',
          persona: null,
          sessionId: null,
          kind: 'semantic',
          length: memory.text.length,
          expiresAt: null,
        },
      },
    ]);
    const { rows } = await sql`select memory_id from index_task`.execute(test.database.of('acme'));
    assert.deepEqual(rows, [{ memory_id: memory.id }]);
    await assert.rejects(memories.store(memoryOf('x', { importance: 7 }), by), /memory_importance_check/);
    assert.deepEqual(await test.events(), [], 'no event of what was not stored');
  });

  it('knows the same text again, in the same scope only', async () => {
    const first = await memories.store(memoryOf('Trains leave at nine', { importance: 0.2 }), by);
    const again = await memories.store(memoryOf('  trains LEAVE\n at nine ', { importance: 0.8 }), by);
    assert.deepEqual([again.created, again.memory.id], [false, first.memory.id]);
    assert.deepEqual([again.memory.seen, again.memory.importance], [2, 0.8]);
    for (const changed of [{ owner: 'bob' }, { team: 'red' }, { persona: 'p' }, { kind: 'episodic' as const }]) {
      const other = await memories.store(memoryOf('Trains leave at nine', changed), by);
      assert.equal(other.created, true, JSON.stringify(changed));
    }
    const foreign = await memories.store(memoryOf('Trains leave at nine', { tenant: 'globex' }), by);
    assert.equal(foreign.created, true);
    assert.notDeepEqual(contentHash('Trains leave at nine'), contentHash('Trains leave at ten'));
  });

  it('stores what comes from one source once, also at the same time', async () => {
    const id = sourcedId('acme', 'ada', 'turn/1');
    const stores = Array.from({ length: 8 }, () => memories.store(memoryOf('Asked and answered', { id }), by));
    const results = await Promise.all(stores);
    assert.equal(results.filter(({ created }) => created).length, 1);
    assert.deepEqual(new Set(results.map(({ memory }) => memory.id)), new Set([id]));
    assert.notEqual(id, sourcedId('globex', 'ada', 'turn/1'));
    assert.notEqual(id, sourcedId('acme', 'bob', 'turn/1'));
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  it('does not store again what was forgotten', async () => {
    const id = sourcedId('acme', 'ada', 'turn/forgotten');
    await sql`insert into forgotten (tenant, memory_id) values ('acme', ${id}::uuid)`.execute(test.database.of('acme'));
    await assert.rejects(memories.store(memoryOf('Once more', { id }), by), AlreadyForgotten);
    const same = await memories.store(memoryOf('Once more', { tenant: 'globex', id }), by);
    assert.equal(same.created, true, 'what one tenant forgets, another may know');
  });

  it('shows each what is visible to it, and nobody another tenant', async () => {
    const session = randomUUID();
    const tenant = 'visible';
    const add = (text: string, changed: object) => memories.store(memoryOf(text, { tenant, ...changed }), by);
    await add('own', { owner: 'ada' });
    await add('of bob', { owner: 'bob' });
    await add('of blue', { owner: 'bob', team: 'blue' });
    await add('of the session', { owner: 'bob', sessionId: session });
    await add('of the persona', { owner: 'bob', persona: 'scout' });
    await add('over', { owner: 'ada', expiresAt: new Date(Date.now() - 1000) });
    assert.deepEqual(await textsOf(scopeOf({ owner: 'ada' }, tenant)), ['own']);
    assert.deepEqual(await textsOf(scopeOf({ owner: 'ada', teams: ['blue'] }, tenant)), ['of blue', 'own']);
    assert.deepEqual(await textsOf(scopeOf({ sessions: [session] }, tenant)), ['of the session']);
    assert.deepEqual(await textsOf(scopeOf({ personas: ['scout'] }, tenant)), ['of the persona']);
    assert.deepEqual(await textsOf(scopeOf({}, tenant)), [], 'nothing visible is nothing, not everything');
    assert.equal((await textsOf(scopeOf({ whole: true }, tenant))).length, 5);
    const elsewhere = { owner: 'ada', teams: ['blue'], sessions: [session], personas: ['scout'], whole: true };
    assert.deepEqual(await textsOf(scopeOf(elsewhere, 'stranger')), []);
  });

  it('keeps tenants apart by row-level security, whatever a statement says', async () => {
    assert.deepEqual(await isolationGaps(test.database.untenanted), []);
    const { memory } = await memories.store(memoryOf('the secret of acme'), by);
    const { rows } = await sql`select id from memory where id = ${memory.id}::uuid or true`.execute(
      test.database.of('globex'),
    );
    assert.ok(rows.every((row) => (row as { id: string }).id !== memory.id));
    const taken = sql`update memory set owner = 'gil' where id = ${memory.id}::uuid`;
    assert.equal((await taken.execute(test.database.of('globex'))).numAffectedRows, 0n);
    const planted = sql`insert into index_task (tenant, memory_id) values ('acme', ${memory.id}::uuid)`;
    await assert.rejects(planted.execute(test.database.of('globex')), { code: '42501' });
    assert.equal(await memories.get('globex', memory.id), undefined);
    const within = await memories.within(scopeOf({ whole: true }, 'globex'), [memory.id]);
    assert.deepEqual(within, [], 'an id that a vector store names is not enough');
    // The control: without the policies the same statement would find it.
    const { rows: open } = await sql`select id from memory where id = ${memory.id}::uuid`.execute(
      test.database.platform,
    );
    assert.equal(open.length, 1);
  });

  it('finds by words: any of them, the better match first, in the scope only', async () => {
    const tenant = 'words';
    const add = (text: string, changed: object = {}) => memories.store(memoryOf(text, { tenant, ...changed }), by);
    const both = await add('The kettle is descaled with vinegar every month');
    const one = await add('Vinegar is kept in the cellar, beside old newspapers and tins of paint');
    await add('Nothing of the kind is here');
    await add('Vinegar for the kettle', { owner: 'bob' });
    const ask = (question: string) => keywordSearch(test.database, scopeOf({ owner: 'ada' }, tenant), question, 10);
    assert.deepEqual(await ask('How do I descale the kettle with vinegar?'), [both.memory.id, one.memory.id]);
    assert.deepEqual(await ask('the of and'), [], 'words that mean nothing find nothing');
    const odd = await ask("'; drop table memory; -- | & ! (vinegar) :* \\' C:\\kettle\\'");
    assert.deepEqual(
      odd.toSorted(),
      [both.memory.id, one.memory.id].toSorted(),
      'a question is words, never an operator',
    );
  });
});
