import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { sql } from 'kysely';
import { CompactRange, leafHash, verifyConsistency, verifyInclusion } from '../merkle/index.ts';
import { startAuditDatabase, type TestAuditDatabase } from '../testing/database.ts';
import { verdictEvent } from '../testing/events.ts';
import { AuditLog } from './audit-log.ts';
import { type Leaf, leafOf, leafOfMessage } from './leaf.ts';
import { StoredTree } from './tree.ts';

let audit: TestAuditDatabase;
before(async () => {
  audit = await startAuditDatabase();
});
after(() => audit.stop());

const leavesOf = (count: number, tenant: string | null = 'acme'): Leaf[] =>
  Array.from({ length: count }, () => leafOf('verdict.decisions', verdictEvent(tenant, randomUUID()).value));

const expectedRoot = async () => {
  const { rows } = await sql<{ leaf: string }>`select leaf from audit_leaf order by index`.execute(
    audit.database.platform,
  );
  const range = new CompactRange();
  for (const { leaf } of rows) range.append(leafHash(Buffer.from(leaf)));
  return range.root().toString('hex');
};

test('what is appended is stored in order, with the root over the stored bytes, and found after a restart', async () => {
  const log = new AuditLog(audit.database);
  const first = leavesOf(3);
  const start = (await log.position()).size;
  const { head } = await log.append(first, { 'audit.session/0': '7' });
  assert.equal(head.size, start + 3);
  const { rows } = await sql<{ leaf: string; index: string }>`
    select leaf, index from audit_leaf where index >= ${start} order by index`.execute(audit.database.platform);
  assert.deepEqual(
    rows,
    first.map(({ text }, place) => ({ leaf: text, index: String(start + place) })),
  );
  assert.equal(head.root.toString('hex'), await expectedRoot());
  const restarted = new AuditLog(audit.open());
  assert.deepEqual(await restarted.position(), { ...head, offsets: { 'audit.session/0': '7' } });
  const next = await restarted.append(leavesOf(300), { 'audit.session/1': '1' });
  assert.equal(next.head.root.toString('hex'), await expectedRoot());
  assert.deepEqual((await restarted.position()).offsets, { 'audit.session/0': '7', 'audit.session/1': '1' });
});

test('appends of the same moment share one transaction', async () => {
  const log = new AuditLog(audit.database);
  const batches = async () => {
    const { rows } = await sql<{ count: string }>`select count(*) from audit_batch`.execute(audit.database.platform);
    return Number(rows[0]?.count);
  };
  const before = await batches();
  const size = (await log.position()).size;
  const appended = await Promise.all(Array.from({ length: 50 }, () => log.append(leavesOf(2))));
  assert.equal(await batches(), before + 1);
  assert.deepEqual(new Set(appended.map(({ head }) => head.size)), new Set([size + 100]));
});

test('an event that comes again is there once: in one append, in the next, and after a restart', async () => {
  const log = new AuditLog(audit.database);
  const [one, two] = leavesOf(2) as [Leaf, Leaf];
  const { size } = await log.position();
  assert.deepEqual((await log.append([one, one, two])).duplicates, 1);
  assert.deepEqual((await log.append([two, one])).duplicates, 2);
  const again = await new AuditLog(audit.open()).append([one, two]);
  assert.deepEqual([again.duplicates, again.conflicts, again.head.size], [2, 0, size + 2]);
});

test('another event under the same id is kept too, once, and counted', async () => {
  const log = new AuditLog(audit.database);
  const { value } = verdictEvent('acme', 'r-1');
  const [real, forged] = [
    leafOf('verdict.decisions', value),
    leafOf('verdict.decisions', { ...value, tenant: 'globex' }),
  ];
  const { size } = await log.position();
  assert.deepEqual(await counts(log.append([real, forged])), [0, 1, size + 2]);
  assert.deepEqual(await counts(log.append([forged, real, forged])), [3, 0, size + 2]);
  const { rows } = await sql`select leaf from audit_leaf where leaf = ${forged.text}`.execute(audit.database.platform);
  assert.equal(rows.length, 1);
});

const counts = async (appending: ReturnType<AuditLog['append']>) => {
  const { duplicates, conflicts, head } = await appending;
  return [duplicates, conflicts, head.size];
};

test('of two writers that build on the same head one is refused, and both go on without a gap', async () => {
  const [one, two] = [new AuditLog(audit.database), new AuditLog(audit.open())];
  await one.append(leavesOf(1));
  const { head } = await two.append(leavesOf(1));
  const stale = one.append(leavesOf(1));
  await assert.rejects(stale, (error: { code?: string }) => error.code === '23505');
  const recovered = await one.append(leavesOf(1));
  assert.equal(recovered.head.size, head.size + 1);
  assert.equal(recovered.head.root.toString('hex'), await expectedRoot());
});

test('a message that is no event is kept as it came, and does not stop the log', async () => {
  const log = new AuditLog(audit.database);
  const { size } = await log.position();
  const event = (change: object) =>
    JSON.stringify({ id: randomUUID(), tenant: null, requestId: null, data: {}, ...change });
  const values = [
    '{"id":',
    Buffer.from([0xff, 0xfe]),
    null,
    event({ id: 'no uuid' }),
    event({ tenant: '\ud800' }),
    event({ tenant: 'a\0b' }),
    event({ requestId: 'a\0b' }),
    event({ requestId: 'x'.repeat(5000) }),
    event({ data: { value: 0 } }).replace('0}', '1e400}'),
    event({ tenant: undefined }),
  ];
  const rubbish = values.map((value, offset) =>
    leafOfMessage({
      topic: 'audit.control',
      partition: 2,
      offset: BigInt(offset),
      value: typeof value === 'string' ? Buffer.from(value) : value,
    }),
  );
  assert.equal(rubbish[0]?.text, '{"offset":"0","partition":2,"topic":"audit.control","unreadable":"eyJpZCI6"}');
  for (const [place, { tenant, text }] of rubbish.entries()) {
    assert.equal(tenant, null);
    assert.match(text, /"unreadable":/, String(values[place]));
  }
  await log.append(rubbish);
  const again = await log.append([...rubbish.slice(0, 1), ...leavesOf(1)]);
  assert.deepEqual([again.duplicates, again.head.size], [1, size + values.length + 1]);
});

test('what an event holds is kept to the last character, whatever it is', async () => {
  const log = new AuditLog(audit.database);
  const odd = JSON.stringify({
    ...verdictEvent('acme', 'r').value,
    data: { text: 'a\0b "quoted" \\ ü \u2028', n: 0.1 },
  });
  const value = Buffer.from(odd.replace('"data":{', '"data":{"__proto__":{"x":1},"10":1,"9":2,'));
  const leaf = leafOfMessage({ topic: 'audit.control', partition: 0, offset: 0n, value });
  assert.match(leaf.text, /"data":\{"10":1,"9":2,"__proto__":\{"x":1\},"n":0\.1,"text":"a\\u0000b/);
  const { head } = await log.append([leaf]);
  assert.equal(head.root.toString('hex'), await expectedRoot());
  const { rows } = await sql`select from audit_leaf where leaf = ${leaf.text}`.execute(audit.database.platform);
  assert.equal(rows.length, 1);
});

test('the bytes of a leaf are canonical: the order of the fields does not matter', () => {
  const { value } = verdictEvent('acme', 'r');
  const reversed = Object.fromEntries(Object.entries(value).reverse()) as typeof value;
  assert.equal(leafOf('verdict.decisions', reversed).text, leafOf('verdict.decisions', value).text);
  assert.match(leafOf('verdict.decisions', value).text, /^\{"event":\{"actor":\{"client":"acme-agent","id":"u-1"/);
});

test('proofs of the stored tree verify, across blocks that are stored as subtrees', async () => {
  const log = new AuditLog(audit.database);
  await log.append(leavesOf(1200));
  const { size, root } = await log.position();
  const tree = new StoredTree(audit.database);
  assert.equal(await tree.size(), size);
  assert.equal((await tree.root(size)).toString('hex'), root.toString('hex'));
  const { rows } = await sql<{ hash: Buffer }>`select hash from audit_leaf order by index`.execute(
    audit.database.platform,
  );
  const hashes = rows.map(({ hash }) => hash);
  for (const index of [0, 1, 255, 256, 511, 700, 1023, 1024, size - 1]) {
    const proof = await tree.inclusion(index, size);
    assert.ok(verifyInclusion({ index, hash: hashes[index] as Buffer }, { size, root }, proof), `leaf ${index}`);
    assert.ok(!verifyInclusion({ index, hash: hashes[index ^ 1] as Buffer }, { size, root }, proof));
  }
  for (const older of [0, 1, 255, 256, 257, 600, 1024, size - 1, size]) {
    const old = { size: older, root: await tree.root(older) };
    assert.ok(verifyConsistency(old, { size, root }, await tree.consistency(older, size)), `${older} of ${size}`);
  }
  await assert.rejects(tree.inclusion(size, size), /index \d+ is not in a tree/);
});

test('nobody changes or removes a row: neither the role of the service, nor the owner, nor a superuser', async () => {
  await new AuditLog(audit.database).append(leavesOf(1));
  const attempts = ['audit_leaf', 'audit_node', 'audit_batch', 'audit_checkpoint', 'audit_cosignature'].flatMap(
    (table) => [
      `update ${table} set ${table === 'audit_leaf' || table === 'audit_node' ? 'index = index' : 'created_at = null'}`.replace(
        'audit_batch set created_at',
        'audit_batch set committed_at',
      ),
      `delete from ${table}`,
      `truncate ${table} cascade`,
    ],
  );
  const before = await contents();
  const superuser = await audit.postgres.connect('audit');
  for (const attempt of attempts) {
    await assert.rejects(sql.raw(attempt).execute(audit.database.platform), { code: '42501' }, attempt);
    await assert.rejects(superuser.query(attempt), /the audit log only grows/, attempt);
  }
  await assert.rejects(
    sql`alter table audit_leaf disable trigger all`.execute(audit.database.platform),
    /must be owner/,
  );
  await superuser.end();
  assert.deepEqual(await contents(), before);
});

const contents = async () => (await sql`select * from audit_leaf order by index`.execute(audit.database.platform)).rows;

test('a connection sees entries of its own tenant only, and cannot write as one', async () => {
  const log = new AuditLog(audit.database);
  await log.append([...leavesOf(2, 'initech'), ...leavesOf(1, null)]);
  const seen = async (db: ReturnType<typeof audit.database.of>) =>
    (await db.selectFrom('audit_leaf').select('tenant').distinct().execute()).map(({ tenant }) => tenant);
  assert.deepEqual(await seen(audit.database.of('initech')), ['initech']);
  assert.deepEqual(await seen(audit.database.of('nobody')), []);
  assert.deepEqual(await seen(audit.database.untenanted), []);
  assert.ok((await seen(audit.database.platform)).length > 2);
  const forged = sql`
    insert into audit_leaf (index, event_id, tenant, topic, leaf, hash)
    values (999999, gen_random_uuid(), 'initech', 'audit.control', '{}', sha256('x'))`;
  await assert.rejects(forged.execute(audit.database.of('initech')), /row-level security/);
});
