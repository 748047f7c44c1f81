import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, it, test } from 'node:test';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { RelationChecker } from './checker.ts';
import { OpenFga, RelationsRefused, RelationsUnavailable } from './client.ts';
import { currentModel, ensureModel, locateModel, type ModelLocation, modelDigest } from './store.ts';
import { hasOpenFga, startOpenFga, type TestOpenFga } from './testing/openfga.ts';
import { objectOf, parseName, type Tuple, userOf } from './tuples.ts';

const ada = { tenant: 'acme', subject: 'ada' };
const gil = { tenant: 'globex', subject: 'gil' };
const session = (id: string, tenant = 'acme') => objectOf('session', tenant, id);

test('no id can name an object of another tenant or type', () => {
  assert.equal(objectOf('session', 'acme', '../globex/s#x:y'), 'session:acme/..%2Fglobex%2Fs%23x%3Ay');
  assert.deepEqual(parseName(objectOf('tool', 'acme', 'a/b c')), { type: 'tool', tenant: 'acme', id: 'a/b c' });
  assert.deepEqual(parseName('tenant:acme'), { type: 'tenant', tenant: 'acme', id: 'acme' });
  assert.deepEqual(parseName('team:acme/blue#member')?.tenant, 'acme');
  for (const name of ['user:*', 'session:acme', 'session:acme/a/b', 'tenant:acme/x', 'Session:acme/x', '']) {
    assert.equal(parseName(name), undefined, name);
  }
});

describe('RelationChecker on a real OpenFGA', { skip: !hasOpenFga() && 'OpenFGA is not built' }, () => {
  let openfga: TestOpenFga;
  let at: ModelLocation;

  before(async () => {
    openfga = await startOpenFga();
    at = await ensureModel(openfga.client);
  });
  after(() => openfga.stop());

  const checkerOf = (options: Partial<ConstructorParameters<typeof RelationChecker>[0]> = {}) =>
    new RelationChecker({ client: openfga.client, locate: () => locateModel(openfga.client), ...options });

  /** A session of ada's, under a name of its own. */
  const owned = (id: string): Tuple[] => [
    { user: userOf(ada), relation: 'member', object: 'tenant:acme' },
    { user: 'tenant:acme', relation: 'tenant', object: session(id) },
    { user: userOf(ada), relation: 'owner', object: session(id) },
  ];
  const write = (writes: readonly Tuple[], deletes: readonly Tuple[] = []) =>
    openfga.client.write(at.store, at.model, writes, deletes);

  it('refuses a request without the key, or with another one', async () => {
    const wrong = `${openfga.tokenFile}.wrong`;
    await writeFile(wrong, 'guess');
    const stranger = new OpenFga({ url: openfga.url, tokenFile: wrong, caFile: openfga.caFile });
    await assert.rejects(
      stranger.stores('somagent'),
      (error) => error instanceof RelationsRefused && error.status === 401,
    );
    await assert.rejects(fetch(`${openfga.url.replace('https', 'http')}/stores`).then((r) => r.json()));
  });

  it('makes store and model once, however often it is asked', async () => {
    const again = await Promise.all([ensureModel(openfga.client), ensureModel(openfga.client)]);
    assert.deepEqual(again, [at, at]);
    assert.equal((await openfga.client.stores('somagent')).length, 1);
  });

  it('makes one store of two that were made at once', async () => {
    const made = await Promise.all(Array.from({ length: 4 }, () => ensureModel(openfga.client, 'race')));
    const [left] = await openfga.client.stores('race');
    assert.ok(left);
    assert.equal((await ensureModel(openfga.client, 'race')).store, left.id);
    assert.ok(made.some(({ store }) => store === left.id));
  });

  it('finds the very model that it was made for, also after a newer one was written', async () => {
    const other = { ...currentModel, type_definitions: currentModel.type_definitions.slice(0, 1), conditions: {} };
    assert.notEqual(modelDigest(other), modelDigest(currentModel));
    const newer = await ensureModel(openfga.client, 'somagent', other);
    assert.notEqual(newer.model, at.model);
    assert.deepEqual(await locateModel(openfga.client), at);
    assert.deepEqual(await ensureModel(openfga.client), at);
  });

  it('says what is missing while there is no store', async () => {
    await assert.rejects(locateModel(openfga.client, 'elsewhere'), /no store "elsewhere" yet/);
  });

  it('answers yes and no, and no for another tenant without a question', async () => {
    await write(owned('s1'));
    const checker = checkerOf();
    assert.equal((await checker.check(ada, 'can_use', session('s1'))).held, true);
    assert.equal((await checker.check({ ...ada, subject: 'bob' }, 'can_use', session('s1'))).held, false);
    const unable = checkerOf({ locate: () => Promise.reject(new Error('asked')) });
    for (const object of [session('s1'), 'tenant:acme', 'session:globex/../acme/s1', 'user:*', 'nonsense']) {
      assert.deepEqual(await unable.check(gil, 'can_view', object), { held: false, ageMs: 0 });
    }
  });

  it('takes no answer that is older than its staleness', async () => {
    await write(owned('s2'));
    const checker = checkerOf({ staleness: 300 });
    assert.equal((await checker.check(ada, 'can_use', session('s2'))).held, true);
    await write([], owned('s2').slice(2));
    const revoked = performance.now();
    let answer = await checker.check(ada, 'can_use', session('s2'));
    assert.equal(answer.held, true, 'the remembered answer is used');
    while (answer.held) {
      assert.ok(answer.ageMs <= 300, `an answer of ${answer.ageMs} ms was used`);
      answer = await checker.check(ada, 'can_use', session('s2'));
    }
    assert.ok(performance.now() - revoked < 600);
  });

  it('lets nobody wait who asks all the time, and is no later for it', async () => {
    await write(owned('s6'));
    const checker = checkerOf({ staleness: 500 });
    const ask = () => checker.check(ada, 'can_use', session('s6'));
    await ask();
    let waits = 0;
    for (const until = performance.now() + 2500; performance.now() < until; await sleep(5)) {
      const answer = ask();
      // What is remembered is there in the same turn of the event loop.
      if ((await Promise.race([answer, nextTurn('waits')])) === 'waits') waits += 1;
      const { held, ageMs } = await answer;
      assert.ok(held && ageMs <= 500, `an answer of ${ageMs} ms was used`);
    }
    assert.ok(waits <= 2, `${waits} of them waited: without asking ahead it is one in each half second`);
    await write([], owned('s6').slice(2));
    const revoked = performance.now();
    while ((await ask()).held) await sleep(5);
    assert.ok(performance.now() - revoked < 800);
  });

  it('asks the same question once, and many in a batch, in order', async () => {
    await write([...owned('s3'), ...owned('s4')]);
    const checker = checkerOf();
    const objects = [session('s3'), session('nothing'), session('s4'), session('s4', 'globex')];
    const answers = await checker.checkAll(ada, 'can_use', objects);
    assert.deepEqual(
      answers.map(({ held }) => held),
      [true, false, true, false],
    );
    const same = await Promise.all(Array.from({ length: 50 }, () => checker.check(ada, 'can_close', session('s3'))));
    assert.ok(same.every(({ held }) => held));
  });

  it('lists what may be seen, by id', async () => {
    const checker = checkerOf();
    const seen = await checker.visible(ada, 'can_view', 'session');
    assert.ok(seen.has('s3') && seen.has('s4') && !seen.has('s2'));
    assert.deepEqual(await checker.visible(gil, 'can_view', 'session'), new Set());
  });

  it('lets the facts of the system of record speak where the event is still on its way', async () => {
    await write(owned('s5').slice(0, 1));
    const facts = async () => owned('s5').slice(1);
    assert.equal((await checkerOf({ facts }).check(ada, 'can_use', session('s5'))).held, true);
    assert.equal((await checkerOf({ facts }).check({ ...ada, subject: 'bob' }, 'can_use', session('s5'))).held, false);
    assert.equal((await checkerOf().check(ada, 'can_use', session('s5'))).held, false);
    const foreign = async (): Promise<Tuple[]> => [{ user: userOf(gil), relation: 'owner', object: session('s5') }];
    assert.equal((await checkerOf({ facts: foreign }).check(ada, 'can_use', session('s5'))).held, false);
  });

  it('fails closed for writes while OpenFGA is away, reads on for a while, and recovers by itself', async () => {
    const checker = checkerOf({ staleness: 0, readGrace: 60_000 });
    assert.equal((await checker.check(ada, 'can_view', session('s3'))).held, true);
    await openfga.pause();
    await assert.rejects(checker.check(ada, 'can_view', session('s3')), RelationsUnavailable);
    const read = await checker.check(ada, 'can_view', session('s3'), { use: 'read' });
    assert.ok(read.held && read.ageMs > 0);
    const unknown = checker.check(ada, 'can_view', session('never-asked'), { use: 'read' });
    await assert.rejects(unknown, RelationsUnavailable);
    const strict = checkerOf({ staleness: 0, readGrace: 0 });
    await assert.rejects(strict.check(ada, 'can_view', session('s3'), { use: 'read' }));
    await openfga.resume();
    at = await ensureModel(openfga.client);
    await write(owned('s3'));
    assert.equal((await checkerOf().check(ada, 'can_view', session('s3'))).held, true);
  });
});
