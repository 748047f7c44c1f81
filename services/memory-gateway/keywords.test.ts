import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { isolationGaps } from '@somagent/kit';
import { sql } from 'kysely';
import { keywordLimits, keywordSearch } from './keywords.ts';
import { Memories } from './memories.ts';
import type { Scope } from './scope.ts';
import { by, memoryOf, startMemoryDatabase, type TestMemoryDatabase } from './testing/database.ts';

const subjects = ['bicycles', 'boats', 'violins', 'maps', 'kettles'];
const places = ['harbour', 'attic', 'garden', 'cellar'];

describe('search by words in a scope too large to be read whole', () => {
  let test: TestMemoryDatabase;
  let memories: Memories;
  const tenant = 'large';
  /** So small that the rows of a test are many. */
  const limits = { wholeScope: 20, candidates: 40, words: 8 };
  const scopeOf = (visible: Scope['visible'], of = tenant): Scope => ({ tenant: of, visible, filter: {} });
  const everything = scopeOf({ owner: 'ada' });
  const ask = (question: string, scope = everything, limit = 10, within = limits) =>
    keywordSearch(test.database, scope, question, limit, within);
  const add = async (text: string, changed: object = {}) =>
    (await memories.store(memoryOf(text, { tenant, ...changed }), by)).memory.id;

  before(async () => {
    test = await startMemoryDatabase();
    memories = new Memories(test.database);
    // 200 of ada, 100 of bob, and the same of another tenant; every word is in dozens of them.
    await sql`
      insert into memory (tenant, id, owner, team, kind, text, content_hash, importance)
      select place.tenant, gen_random_uuid(), case when n < 200 then 'ada' else 'bob' end,
        case when n % 10 = 0 then 'blue' end, 'semantic', text, sha256((text || n)::bytea), 0.5
      from unnest(array['large', 'other']) place (tenant), generate_series(0, 299) n, lateral (
        select format('Note %s on %s of the %s', n, (${subjects}::text[])[1 + n % 5], (${places}::text[])[1 + n % 4]) as text
      ) row`.execute(test.database.platform);
  });
  after(() => test.stop());

  const textsOf = async (ids: readonly string[]) => {
    const found = await memories.within(scopeOf({ whole: true }), ids);
    return ids.map((id) => found.find((memory) => memory.id === id)?.text ?? 'not visible');
  };

  it('finds what has a rare word first, and all that has it', async () => {
    const rare = await add('The zeppelin is over the harbour');
    const second = await add('A zeppelin, its captain and a crew of nine left for the islands of the south');
    const found = await ask('Was there a zeppelin over the harbour?');
    assert.deepEqual(found.slice(0, 2), [rare, second]);
    const others = await textsOf(found.slice(2));
    assert.ok(others.length === 8 && others.every((text) => text.includes('harbour')), others.join());
  });

  it('of common words only, finds first what has all of them', async () => {
    const found = await textsOf(await ask('Where are the bicycles, in the harbour?', everything, 30));
    const both = found.map((text) => text.includes('bicycles') && text.includes('harbour'));
    assert.equal(both.filter(Boolean).length, 10, 'every twentieth of 200');
    assert.equal(both.lastIndexOf(true), 9, 'the others come after them');
    assert.equal(found.length, 30);
  });

  it('finds what reading everything finds, while no word is too common', async () => {
    const best = await add('Maps of violins of the cellar');
    const many = { ...limits, candidates: 1000 };
    const whole = await ask('Which maps of violins are in the cellar?', everything, 1000, keywordLimits);
    const indexed = await ask('Which maps of violins are in the cellar?', everything, 1000, many);
    assert.deepEqual([whole[0], indexed[0]], [best, best]);
    assert.ok(whole.length > 80, `${whole.length} have one of the words`);
    assert.deepEqual(new Set(indexed), new Set(whole));
    assert.equal(indexed.length, whole.length, 'none comes twice');
  });

  it('takes its scope seriously: owner, team, filter, expiry, duplicates', async () => {
    const own = await textsOf(await ask('violins', everything, 40));
    assert.equal(own.length, 40, 'as many as are ranked');
    for (const [name, scope] of Object.entries({
      bob: scopeOf({ owner: 'bob' }),
      blue: scopeOf({ teams: ['blue'] }),
      nobody: scopeOf({}),
    })) {
      const ids = await ask('maps harbour attic garden cellar', scope, 100);
      const { rows } = await sql<{ owner: string; team: string | null }>`
        select owner, team from memory where id = any(${[...ids]}::uuid[])`.execute(test.database.of(tenant));
      assert.equal(rows.length, ids.length);
      assert.ok(
        rows.every((row) => (name === 'bob' ? row.owner === 'bob' : row.team === 'blue')),
        name,
      );
      assert.equal(ids.length > 0, name !== 'nobody', name);
    }
    const gone = await add('The gyroscope is broken', { expiresAt: new Date(Date.now() - 1000) });
    const late = await add('The gyroscope is mended');
    await sql`update memory set duplicate_of = gen_random_uuid() where id = ${late}::uuid`.execute(
      test.database.of(tenant),
    );
    const kept = await add('The gyroscope is sold');
    assert.deepEqual(await ask('gyroscope'), [kept], `${gone} is over, ${late} has another to answer for it`);
    const young = { ...everything, filter: { since: new Date(Date.now() + 60_000) } };
    assert.deepEqual(await ask('gyroscope', young), []);
  });

  it('takes a question for words, whatever it has in it', async () => {
    const odd = await add("Sallow's kettle \\ C:\\kettle & co");
    const found = await ask("'; drop table memory; -- | & ! sallow's :* \\' C:\\kettle\\' ' & !");
    assert.equal(found[0], odd);
    assert.deepEqual(await ask('the of and'), [], 'words that mean nothing find nothing');
    assert.deepEqual(await ask('xylophone'), []);
  });

  it('is led by the index over tenant and words', async () => {
    await sql`analyze memory`.execute(test.database.untenanted);
    const rows = test.database.of(tenant);
    const plan = await rows.transaction().execute(async (inside) => {
      await sql`set local enable_seqscan = off`.execute(inside);
      await sql`select memory_ask('''zeppelin'''::tsquery)`.execute(inside);
      return sql<{ 'QUERY PLAN': string }>`explain select id from memory_by_words where tenant = ${tenant}`.execute(
        inside,
      );
    });
    const text = plan.rows.map((row) => row['QUERY PLAN']).join('\n');
    assert.match(text, /Bitmap Index Scan on memory_search .*\n +Index Cond: .*tenant = .*search @@ /);
    // The control: at the first door the planner may not take the words to the index.
    const closed = await sql<{ 'QUERY PLAN': string }>`
      explain select id from memory where tenant = ${tenant} and search @@ 'zeppelin'::tsquery`.execute(rows);
    assert.doesNotMatch(closed.rows.map((row) => row['QUERY PLAN']).join('\n'), /Index Cond: .*search @@/);
  });

  it('shows no row of another tenant by the second door, and lets nobody write there', async () => {
    assert.deepEqual(await isolationGaps(test.database.untenanted), []);
    const secret = await add('The password of the vault is periwinkle', { tenant: 'other' });
    const through = async (rows: ReturnType<typeof test.database.of>, words: string | null) =>
      rows.connection().execute(async (one) => {
        await sql`select set_config('soma.words', ${words}, false)`.execute(one);
        const { rows: found } = await sql<{ id: string; tenant: string }>`
          select id, tenant from memory_by_words where true or tenant = 'other'`.execute(one);
        await sql`select set_config('soma.words', '', false)`.execute(one);
        return found;
      });
    const { of, platform, untenanted } = { of: (name: string) => test.database.of(name), ...handles(test) };
    assert.deepEqual(
      (await through(of('other'), "'periwinkl'")).map(({ id }) => id),
      [secret],
      'the control: its own tenant finds it',
    );
    assert.deepEqual(await through(of(tenant), "'periwinkl'"), []);
    assert.deepEqual(await through(of(tenant), "'periwinkl' | !'periwinkl'").then(tenantsOf), [tenant]);
    for (const rows of [platform, untenanted]) assert.deepEqual(await through(rows, "!'x'"), []);
    assert.deepEqual(await through(of(tenant), null), [], 'without words nothing');
    assert.deepEqual(await ask('periwinkle', scopeOf({ whole: true })), []);
    assert.deepEqual(await ask('periwinkle', scopeOf({ whole: true }, 'other')), [secret]);

    await through(of('other'), "'periwinkl'");
    for (const [rows, statement] of [
      [of('other'), sql`update memory_by_words set owner = 'gil'`],
      [of('other'), sql`delete from memory_by_words`],
      [platform, sql`update memory_by_words set owner = 'gil'`],
      [platform, sql`delete from memory_by_words`],
    ] as const) {
      assert.equal((await statement.execute(rows)).numAffectedRows, 0n);
    }
    const planted = sql`
      insert into memory_by_words (tenant, id, owner, kind, text, content_hash, importance, seen, created_at)
      values ('other', gen_random_uuid(), 'gil', 'semantic', 'planted', sha256('x'), 1, 1, now())`;
    await assert.rejects(planted.execute(of('other')), { code: '42501' });
  });

  it('would be found out by the list of gaps, were the door left open', async () => {
    await sql`alter table memory_by_words no force row level security`.execute(test.database.untenanted);
    const gaps = await isolationGaps(test.database.untenanted);
    await sql`alter table memory_by_words force row level security`.execute(test.database.untenanted);
    assert.deepEqual(
      gaps.map(({ table }) => table),
      ['public.memory_by_words'],
    );
  });
});

const handles = ({ database: { platform, untenanted } }: TestMemoryDatabase) => ({ platform, untenanted });
const tenantsOf = (rows: readonly { readonly tenant: string }[]) => [...new Set(rows.map((row) => row.tenant))];
