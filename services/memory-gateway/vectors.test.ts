import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { sql } from 'kysely';
import { Forgetter } from './forget.ts';
import { Indexer } from './indexer.ts';
import { Memories, type NewMemory } from './memories.ts';
import { ownWork } from './memory-events.ts';
import { Recall } from './recall.ts';
import { reindex } from './reindex.ts';
import type { Scope } from './scope.ts';
import { Sweeper } from './sweeper.ts';
import { by, memoryOf, quiet, startMemoryDatabase, type TestMemoryDatabase } from './testing/database.ts';
import { startTestStores, type TestStores } from './testing/stores.ts';

describe('memories with the real engine and the real model', { timeout: 300_000 }, () => {
  let test: TestMemoryDatabase;
  let stores: TestStores;
  let memories: Memories;
  let indexer: Indexer;
  let recall: Recall;
  let forgetter: Forgetter;

  const scopeOf = (tenant: string, owner = 'ada', filter: Scope['filter'] = {}): Scope => ({
    tenant,
    visible: { owner },
    filter,
  });
  const add = async (text: string, changed: Partial<NewMemory> = {}) =>
    (await memories.store(memoryOf(text, changed), by)).memory;
  const indexAll = async () => {
    while ((await indexer.step()) > 0);
  };
  const ask = (scope: Scope, query: string, deadlineMs = 20_000) =>
    recall.recall({ scope, query, limit: 5, deadlineMs });

  before(async () => {
    [test, stores] = await Promise.all([startMemoryDatabase(), startTestStores(['large'])]);
    const { database } = test;
    const { vectors, embeddings } = stores;
    memories = new Memories(database);
    indexer = new Indexer({ database, vectors, embeddings, log: quiet });
    recall = new Recall({ database, memories, vectors, embeddings, log: quiet });
    forgetter = new Forgetter({ database, vectors, log: quiet });
  });
  after(async () => {
    await stores.stop();
    await test.stop();
  });

  it('finds by meaning what shares no word, and says how', async () => {
    const tenant = 'meaning';
    const dog = await add('The hound of the family is called Bruno', { tenant });
    await add('The invoice of May was paid late', { tenant });
    await add('Trains to the coast leave every hour', { tenant });
    const early = await ask(scopeOf(tenant), 'Which hound?');
    assert.equal(early.memories[0]?.id, dog.id, 'before it is indexed it is found by its words');
    await indexAll();
    const { memories: found, degraded } = await ask(scopeOf(tenant), 'What is the name of our dog?');
    assert.equal(degraded, null);
    assert.equal(found[0]?.id, dog.id);
    assert.deepEqual(found[0]?.rank, { vectors: 1, keywords: found[0]?.rank.keywords ?? null });
    assert.ok((found[0]?.similarity ?? 0) > 0.3);
  });

  it('filters by owner, session, persona, kind and time, by vectors as by words', async () => {
    const [tenant, session] = ['filters', randomUUID()];
    const text = (what: string) => `The meeting about ${what} takes place in the garden`;
    const mine = await add(text('bees'), { tenant });
    const inSession = await add(text('wasps'), { tenant, sessionId: session });
    const scouts = await add(text('hornets'), { tenant, persona: 'scout' });
    const episode = await add(text('ants'), { tenant, kind: 'episodic' });
    await add(text('moths'), { tenant, owner: 'bob' });
    await indexAll();
    const idsOf = async (filter: Scope['filter']) =>
      (await ask(scopeOf(tenant, 'ada', filter), 'Where do we meet?')).memories.map(({ id }) => id).sort();
    assert.deepEqual(await idsOf({}), [mine.id, inSession.id, scouts.id, episode.id].sort());
    assert.deepEqual(await idsOf({ sessionId: session }), [inSession.id]);
    assert.deepEqual(await idsOf({ persona: 'scout' }), [scouts.id]);
    assert.deepEqual(await idsOf({ persona: null, kinds: ['semantic'] }), [mine.id, inSession.id].sort());
    assert.deepEqual(await idsOf({ kinds: ['episodic'] }), [episode.id]);
    assert.deepEqual(await idsOf({ since: new Date(Date.now() + 60_000) }), []);
    assert.deepEqual(await idsOf({ until: new Date(Date.now() - 3_600_000) }), []);
  });

  it('gives the tenant that is large a collection of its own, and shows neither the other', async () => {
    const { vectors } = stores;
    assert.notEqual(vectors.collectionOf('large'), vectors.collectionOf('small'));
    assert.equal(vectors.collectionOf('small'), vectors.collectionOf('meaning'));
    const secret = 'The code of the safe is nine four seven';
    const ids = [await add(secret, { tenant: 'large' }), await add(secret, { tenant: 'small' })].map(({ id }) => id);
    await indexAll();
    const present = await vectors.present(ids);
    assert.deepEqual(present[vectors.collectionOf('large')], 1);
    assert.deepEqual(present[vectors.collectionOf('small')], 1);
    for (const [place, tenant] of ['large', 'small'].entries()) {
      const found = (await ask(scopeOf(tenant), 'What opens the safe?')).memories;
      assert.deepEqual(
        found.map(({ id }) => id),
        [ids[place]],
      );
    }
    const { memories: stranger } = await ask(scopeOf('stranger'), 'What opens the safe?');
    assert.deepEqual(stranger, []);
  });

  it('says whose each request is: engine and model write it into their logs', async () => {
    const tenant = 'named-in-logs';
    await add('A lantern hangs in the boathouse', { tenant });
    await indexAll();
    await recall.recall({ scope: scopeOf(tenant), query: 'Where is the light?', limit: 3, deadlineMs: 20_000 });
    await stores.vectors.collections();
    const requests = async (log: Promise<string>) =>
      (await log)
        .split('\n')
        .filter((line) => line.includes('"message": "request"'))
        .map((line): { tenant: string; path: string } => JSON.parse(line));
    const asked = async (log: Promise<string>) =>
      (await requests(log)).filter((line) => line.tenant === tenant).map(({ path }) => path.split('/').at(-1));
    assert.deepEqual(await asked(stores.worker.log()), ['embeddings', 'embeddings']);
    assert.deepEqual(await asked(stores.engine.log()), ['batch', 'points', 'query']);
    // What is of no tenant is not given the one of the request before.
    const last = (await requests(stores.engine.log())).at(-1);
    assert.deepEqual([last?.path, last?.tenant], ['/collections', 'platform']);
  });

  it('shows no text of another tenant, even where the vector store is made to lie', async () => {
    const [victim, thief] = ['victim', 'thief'];
    const secret = await add('The merger is announced in October', { tenant: victim });
    await indexAll();
    const [vector = []] = await stores.embeddings.embed(['When is the merger announced?']);
    // Planted: a point with the id of the victim's memory that claims to be the thief's.
    const payload = { tenant: thief, owner: 'ada', team: '', persona: '', session_id: '', kind: 'semantic' };
    const planted = { id: secret.id, vector, payload: { ...payload, created_at: 1, expires_at: 2 ** 52 } };
    await stores.vectors.upsert(thief, [planted as never]);
    const found = await stores.vectors.search(scopeOf(thief), vector, 5);
    assert.deepEqual(
      found.map(({ id }) => id),
      [secret.id],
      'the lie is there',
    );
    assert.deepEqual((await ask(scopeOf(thief), 'When is the merger announced?')).memories, []);
  });

  it('marks facts that say nearly the same, and lets one take the place of the other', async () => {
    const tenant = 'twice';
    const first = await add('Ada likes her tea with two spoons of sugar.', { tenant });
    await indexAll();
    const second = await add('Ada likes her tea with two spoons of sugar', { tenant });
    // One word, and another fact: its cosine is 0.970.
    const other = await add('Ada likes her tea with three spoons of sugar.', { tenant });
    const elsewhere = await add('Ada likes her tea with two spoons of sugar.', { tenant, owner: 'bob' });
    await indexAll();
    const idsOf = async (owner: string) =>
      (await ask(scopeOf(tenant, owner), 'How does Ada like her tea?')).memories.map(({ id }) => id).sort();
    assert.deepEqual(await idsOf('ada'), [first.id, other.id].sort());
    assert.deepEqual(await idsOf('bob'), [elsewhere.id], 'what somebody else knows is no duplicate');
    const one = { ...scopeOf(tenant), filter: { ids: [first.id] } };
    assert.equal((await forgetter.forget(one, by)).forgotten, 1);
    await indexAll();
    assert.deepEqual(await idsOf('ada'), [second.id, other.id].sort());
  });

  it('forgets in every store, and proves it by counting again', async () => {
    const tenant = 'forgetting';
    const ids = [];
    for (const what of ['oak', 'ash', 'elm']) ids.push((await add(`The ${what} tree is ill`, { tenant })).id);
    const kept = await add('The tree of bob is well', { tenant, owner: 'bob' });
    await indexAll();
    const { url, apiKeyFile, caFile } = stores.engine;
    await makeSnapshot(url, apiKeyFile, caFile, stores.vectors.collectionOf(tenant));
    await test.events();
    const answer = await forgetter.forget(scopeOf(tenant), by);
    assert.deepEqual([answer.forgotten, answer.proven], [3, true]);
    assert.deepEqual(answer.proof.postgres, { memories: 0, inScope: 0, indexTasks: 0 });
    assert.equal(answer.proof.vectors.state, 'absent');
    assert.deepEqual(answer.proof.snapshots, { deleted: 1, left: 0 });
    const left = await stores.vectors.present([...ids, kept.id]);
    assert.equal(
      Object.values(left).reduce((sum, count) => sum + count, 0),
      1,
      'only what was not meant is left',
    );
    const events = await test.events();
    assert.deepEqual(
      events.map(({ type, data }) => [type, data.count, data.owner]),
      [['memory.forgotten', 3, 'ada']],
    );
    assert.ok(!JSON.stringify(events).includes('tree'), 'no event has the text');
    const again = await forgetter.forget(scopeOf(tenant), by);
    assert.deepEqual([again.forgotten, again.proven], [0, true]);
  });

  it('a proof that is not true is not given: a point that stays behind is counted', async () => {
    const tenant = 'ghost';
    const memory = await add('A ghost in the attic', { tenant });
    await indexAll();
    const { vectors } = stores;
    const lazy = new Forgetter({
      database: test.database,
      log: quiet,
      vectors: {
        remove: async () => undefined,
        present: (ids) => vectors.present(ids),
        dropSnapshots: () => vectors.dropSnapshots(),
      },
    });
    const { proven, proof } = await lazy.forget(scopeOf(tenant), by);
    assert.deepEqual([proven, proof.vectors.state], [false, 'present']);
    assert.deepEqual(await vectors.present([memory.id]).then((found) => found[vectors.collectionOf(tenant)]), 1);
    await vectors.remove([memory.id]);
  });

  it('goes on by words while the engine is away, says so, and catches up', async () => {
    const tenant = 'away';
    const before = await add('The bakery opens at six', { tenant });
    await indexAll();
    await stores.engine.kill();
    const during = await add('The bakery closes at noon', { tenant });
    await assert.rejects(indexer.step());
    const answer = await ask(scopeOf(tenant), 'bakery');
    assert.deepEqual(answer.memories.map(({ id }) => id).sort(), [before.id, during.id].sort());
    assert.equal(answer.degraded?.without, 'vectors');
    const pending = await forgetter.forget({ ...scopeOf(tenant), filter: { ids: [before.id] } }, by);
    assert.deepEqual([pending.forgotten, pending.proven, pending.proof.vectors.state], [1, false, 'pending']);
    await stores.engine.start();
    await indexAll();
    const present = await stores.vectors.present([before.id, during.id]);
    assert.equal(present[stores.vectors.collectionOf(tenant)], 1, 'the one is gone, the other has come');
    assert.equal((await ask(scopeOf(tenant), 'When does the bread shop shut?')).degraded, null);
  });

  it('owes what was forgotten while the engine is away, and pays it: points, snapshots, proof', async () => {
    const [tenant, { url, apiKeyFile, caFile }] = ['owed', stores.engine];
    const collection = stores.vectors.collectionOf(tenant);
    const ids = [];
    for (const what of ['pear', 'quince']) ids.push((await add(`The ${what} is ripe`, { tenant })).id);
    await indexAll();
    await makeSnapshot(url, apiKeyFile, caFile, collection);
    await test.events();
    const only = (id = '') => ({ ...scopeOf(tenant), filter: { ids: [id] } });
    const namesOf = (events: readonly { type: string; actor: string; data: object }[]) =>
      events.map(({ type, actor, data }) => [type, actor, 'memoryIds' in data ? data.memoryIds : null]);

    await stores.engine.kill();
    for (const id of ids) assert.equal((await forgetter.forget(only(id), by)).proven, false);
    const { forgotten, proven, proof } = await forgetter.forget(scopeOf(tenant), by);
    assert.deepEqual([forgotten, proven, proof.vectors.state], [0, false, 'pending'], 'a repetition proves nothing');
    await stores.engine.start();
    assert.equal((await stores.vectors.present(ids))[collection], 2, 'the control: they are still there');
    await test.events();

    await indexAll();
    assert.equal((await stores.vectors.present(ids))[collection], 0);
    assert.deepEqual(await stores.vectors.dropSnapshots(), { deleted: 0, left: 0 }, 'no snapshot has them');
    assert.deepEqual(namesOf(await test.events()), [['memory.wiped', ownWork('indexer').actor.id, ids]]);
    assert.equal((await forgetter.forget(scopeOf(tenant), by)).proven, true);
    assert.deepEqual(await test.events(), [], 'it was proven once');
  });

  it('pays what is owed with the next deletion, if that comes before the indexer', async () => {
    const tenant = 'debtor';
    const ids = [];
    for (const what of ['plum', 'medlar']) ids.push((await add(`The ${what} is ripe`, { tenant })).id);
    await indexAll();
    const [first, second] = ids.map((id) => ({ ...scopeOf(tenant), filter: { ids: [id] } }));
    await stores.engine.kill();
    assert.equal((await forgetter.forget(first ?? scopeOf(tenant), by)).proven, false);
    await stores.engine.start();
    await test.events();
    assert.equal((await forgetter.forget(second ?? scopeOf(tenant), by)).proven, true);
    assert.equal((await stores.vectors.present(ids))[stores.vectors.collectionOf(tenant)], 0);
    const wiped = (await test.events()).filter(({ type }) => type === 'memory.wiped');
    assert.deepEqual(
      wiped.map(({ actor, data }) => [actor, data.memoryIds]),
      [[by.actor.id, [ids[0]]]],
    );
    assert.equal(await indexer.step(), 0, 'no task is left');
  });

  it('the indexer takes no deletion for done that left a point behind', async () => {
    const tenant = 'stubborn';
    const { id } = await add('A stubborn ghost', { tenant });
    await indexAll();
    const { vectors } = stores;
    const away = { ...failing, dropSnapshots: () => vectors.dropSnapshots() };
    const offline = new Forgetter({ database: test.database, log: quiet, vectors: away });
    assert.equal((await offline.forget(scopeOf(tenant), by)).proven, false);
    const lazy = new Indexer({
      database: test.database,
      embeddings: stores.embeddings,
      log: quiet,
      vectors: {
        upsert: (of, points) => vectors.upsert(of, points),
        searchMany: (...asked) => vectors.searchMany(...asked),
        present: (of) => vectors.present(of),
        dropSnapshots: () => vectors.dropSnapshots(),
        remove: async () => undefined,
      },
    });
    await assert.rejects(lazy.step(), /still has forgotten memories/);
    await indexAll();
    assert.equal((await vectors.present([id]))[vectors.collectionOf(tenant)], 0);
  });

  it('loses nothing and refuses nobody when the engine is killed while memories are stored and recalled', async () => {
    const tenant = 'crash';
    await add('The first note of the log', { tenant });
    await indexAll();
    const busy = new Indexer({ database: test.database, ...stores, log: quiet, batch: 4 });
    busy.start();
    const ids: string[] = [];
    const seen = new Set<string | undefined>();
    const work = async (worker: number) => {
      for (let number = 0; number < 12; number += 1) {
        // Episodes are never near duplicates: each has a vector of its own.
        const text = `Entry ${worker}-${number} of the log`;
        ids.push((await add(text, { tenant, kind: 'episodic' })).id);
        busy.wake();
        const { memories: found, degraded } = await ask(scopeOf(tenant), `Entry ${worker}-${number}`);
        assert.ok(found.length > 0);
        seen.add(degraded?.without);
        if (worker === 0 && number === 3) await stores.engine.kill();
        if (worker === 0 && number === 9) await stores.engine.start();
      }
    };
    await Promise.all([0, 1, 2].map(work));
    await busy.stop();
    await indexAll();
    assert.deepEqual(seen, new Set([undefined, 'vectors']), 'some answers had vectors, and those without said so');
    assert.equal(ids.length, 36);
    assert.equal((await stores.vectors.present(ids))[stores.vectors.collectionOf(tenant)], 36);
    const back = await ask(scopeOf(tenant), 'The log');
    assert.equal(back.degraded, null);
  });

  it('an answer is not waited for longer than the deadline', async () => {
    const begun = performance.now();
    const { degraded, timings } = await ask(scopeOf('away'), 'bakery', 1);
    assert.equal(degraded?.reason, 'no answer within 1 ms');
    assert.equal(timings.vectors, null);
    assert.ok(performance.now() - begun < 2000);
  });

  it('survives a kill -9 of the indexer in the middle, without a gap and without a ghost', async () => {
    const tenant = 'killed';
    const ids: string[] = [];
    for (let index = 0; index < 60; index += 1) ids.push((await add(`Fact number ${index}`, { tenant })).id);
    const script = new URL('./testing/indexer-process.ts', import.meta.url).pathname;
    const environment = { ...process.env, ...stores.environment, TEST_POSTGRES: JSON.stringify(test.config) };
    for (let kill = 0; kill < 2; kill += 1) {
      const child = spawn(process.execPath, [script], { stdio: 'ignore', env: environment });
      await waitFor({ name: 'the indexer', address: script, fix: 'run it by hand' }, () => begun(ids), { seconds: 60 });
      child.kill('SIGKILL');
      await forgetter.forget({ ...scopeOf(tenant), filter: { ids: [ids[kill] ?? ''] } }, by);
    }
    await indexAll();
    const found = await stores.vectors.present(ids);
    assert.equal(found[stores.vectors.collectionOf(tenant)], 58);
    assert.equal(await stores.vectors.count(tenant), 58);
  });

  /** Some vectors of these are there. */
  async function begun(ids: readonly string[]): Promise<void> {
    const found = await stores.vectors.present(ids);
    if (Object.values(found).every((count) => count === 0)) throw new Error('no vector yet');
  }

  it('builds the vectors again from Postgres', async () => {
    const { vectors } = stores;
    const all = await sql<{ count: number }>`
      select count(*)::integer as count from memory where tenant = 'killed' and duplicate_of is null`.execute(
      test.database.of('killed'),
    );
    const { dropped } = await reindex(test.database, vectors);
    assert.ok(dropped.includes(vectors.collectionOf('killed')));
    const during = await ask(scopeOf('killed'), 'Fact number 7');
    assert.equal(during.degraded?.reason, 'the vectors are not built yet');
    assert.ok(during.memories.length > 0);
    await indexAll();
    assert.equal(await vectors.count('killed'), all.rows[0]?.count);
  });

  it('deletes what has expired, with its vector, and says why', async () => {
    const tenant = 'expiry';
    const over = await add('Yesterday it rained', { tenant, expiresAt: new Date(Date.now() + 300) });
    const stays = await add('It rains in autumn', { tenant });
    await indexAll();
    await sleep(400);
    assert.deepEqual(
      (await ask(scopeOf(tenant), 'rain')).memories.map(({ id }) => id),
      [stays.id],
    );
    await test.events();
    const sweeper = new Sweeper({ database: test.database, forgetter, log: quiet, interval: 60_000 });
    assert.equal(await sweeper.sweep(), 1);
    assert.equal(await memories.get(tenant, over.id), undefined);
    assert.equal((await stores.vectors.present([over.id]))[stores.vectors.collectionOf(tenant)], 0);
    const [event] = await test.events();
    assert.deepEqual(
      [event?.type, event?.actor, event?.data.reason],
      ['memory.forgotten', ownWork('sweeper').actor.id, 'expired'],
    );
    assert.equal(await sweeper.sweep(), 0);
  });
});

/** A vector store that nobody reaches. */
const failing = {
  remove: () => Promise.reject(new Error('no way there')),
  present: () => Promise.reject(new Error('no way there')),
};

async function makeSnapshot(url: string, keyFile: string, caFile: string, collection: string): Promise<void> {
  const { fetchTrusting } = await import('@somagent/kit');
  const { readFileSync } = await import('node:fs');
  const headers = { 'api-key': readFileSync(keyFile, 'utf8').trim() };
  const response = await fetchTrusting(caFile)(`${url}/collections/${collection}/snapshots`, {
    method: 'POST',
    headers,
  });
  assert.equal(response.status, 200, await response.text());
}
