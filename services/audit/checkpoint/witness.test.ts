import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createLogger } from '@somagent/kit';
import { AuditLog } from '../log/audit-log.ts';
import { leafOf } from '../log/leaf.ts';
import { StoredTree } from '../log/tree.ts';
import { CompactRange, consistencyRanges, leafHash, nodeKey, proofFrom } from '../merkle/index.ts';
import { startAuditDatabase, type TestAuditDatabase } from '../testing/database.ts';
import { verdictEvent } from '../testing/events.ts';
import { makeKey } from '../testing/keys.ts';
import { startWitnessServer } from '../testing/witness-server.ts';
import { checkpointText, parseCheckpoint } from './checkpoint.ts';
import { Checkpointer } from './checkpointer.ts';
import { isSignedBy, parseNote, signText } from './note.ts';
import { CheckpointStore } from './store.ts';
import { addCheckpointBody, Witness } from './witness.ts';
import { WitnessClient, WitnessRefusal } from './witness-client.ts';
import { WitnessState } from './witness-state.ts';

const origin = 'audit.example/log';
const log = makeKey(origin, 'log');
const key = makeKey('witness.example/w1', 'witness');
const folders: string[] = [];
let audit: TestAuditDatabase;
before(async () => {
  audit = await startAuditDatabase();
});
after(async () => {
  await audit.stop();
  for (const folder of folders) rmSync(folder, { recursive: true });
});

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'somagent-witness-'));
  folders.push(folder);
  return folder;
}

const witnessIn = (folder: string) =>
  new Witness({ origin, verifier: log.verifier }, key.signer, new WitnessState(folder));

/** A tree in memory whose leaves from `fork` on are others. */
function tree(size: number, fork = Number.POSITIVE_INFINITY) {
  const range = new CompactRange();
  const nodes = new Map<string, Buffer>();
  for (let index = 0; index < size; index += 1) {
    const leaf = leafHash(Buffer.from(`${index}${index >= fork ? ' forked' : ''}`));
    range.append(leaf, (node, hash) => nodes.set(nodeKey(node), hash));
  }
  const text = checkpointText({ origin, size, root: range.root() });
  return {
    note: `${text}\n${signText(text, log.signer)}`,
    text,
    proof: (older: number) => proofFrom(consistencyRanges(older, size), nodes),
  };
}

const ask = (witness: Witness, size: number, older: number, fork?: number) => {
  const { note, proof } = tree(size, fork);
  return witness.addCheckpoint(addCheckpointBody(older, proof(older), note));
};

test('a witness cosigns what continues, in one process and after a restart', async () => {
  const folder = newFolder();
  const first = await ask(witnessIn(folder), 5, 0);
  assert.equal(first.status, 200);
  assert.ok(isSignedBy(parseNote(`${tree(5).text}\n${first.body}`), key.verifier));
  const second = await ask(witnessIn(folder), 12, 5);
  assert.equal(second.status, 200);
  assert.equal((await ask(witnessIn(folder), 12, 12)).status, 200);
  assert.equal(JSON.parse(readFileSync(join(folder, 'head.json'), 'utf8')).size, 12);
});

test('a fork, a rollback and a rewritten tree of the same size are refused, and the head stays', async () => {
  const folder = newFolder();
  const witness = witnessIn(folder);
  await ask(witness, 10, 0);
  const head = readFileSync(join(folder, 'head.json'), 'utf8');
  assert.equal((await ask(witness, 15, 10, 9)).status, 422);
  assert.equal((await ask(witness, 15, 10, 0)).status, 422);
  assert.deepEqual(await ask(witness, 10, 10, 9), { status: 409, body: '10\n' });
  assert.deepEqual(await ask(witness, 8, 4), { status: 409, body: '10\n' });
  assert.equal((await ask(witness, 8, 0)).status, 409);
  assert.equal(readFileSync(join(folder, 'head.json'), 'utf8'), head);
  assert.equal((await ask(witness, 15, 10, 10)).status, 200);
});

test('requests that are not those of the log are refused', async () => {
  const witness = witnessIn(newFolder());
  const { note, text } = tree(3);
  const stranger = makeKey(origin, 'log');
  const foreign = text.replace(origin, 'other.example/log');
  assert.equal(
    (await witness.addCheckpoint(addCheckpointBody(0, [], `${text}\n${signText(text, stranger.signer)}`))).status,
    403,
  );
  assert.equal(
    (await witness.addCheckpoint(addCheckpointBody(0, [], `${foreign}\n${signText(foreign, log.signer)}`))).status,
    404,
  );
  for (const body of ['', 'old 0\n', `old -1\n\n${note}`, `old 0\nrubbish\n\n${note}`, `old 0\n\nno note`]) {
    assert.equal((await witness.addCheckpoint(body)).status, 400, JSON.stringify(body));
  }
  assert.equal((await witness.addCheckpoint(addCheckpointBody(4, [], note))).status, 400);
});

test('a witness whose state cannot be read cosigns nothing', async () => {
  const folder = newFolder();
  writeFileSync(join(folder, 'head.json'), '{"size":');
  await assert.rejects(ask(witnessIn(folder), 5, 0), SyntaxError);
});

test('of two checkpoints of different trees at once a witness cosigns one only', async () => {
  const witness = witnessIn(newFolder());
  const statuses = await Promise.all([ask(witness, 10, 0), ask(witness, 10, 0, 3)]);
  assert.deepEqual(statuses.map(({ status }) => status).sort(), [200, 409]);
});

test('the stored tree is signed when it grew, witnessed over HTTPS, and a rolled back log is refused', async (context) => {
  const folder = newFolder();
  const server = await startWitnessServer(witnessIn(folder));
  context.after(() => server.stop());
  const stored = new StoredTree(audit.database);
  const store = new CheckpointStore(audit.database);
  const client = () =>
    new WitnessClient({ url: server.url, verifier: key.verifier, tree: stored, fetch: server.fetch });
  const options = {
    origin,
    signer: log.signer,
    tree: stored,
    store,
    log: createLogger({ service: 't', level: 'silent' }),
  };
  const checkpointer = new Checkpointer({ ...options, witness: client() });
  const appending = new AuditLog(audit.database);
  await checkpointer.run();
  assert.equal(await store.newest(), undefined);
  for (const count of [3, 1, 300]) {
    await appending.append(
      Array.from({ length: count }, () => leafOf('verdict.decisions', verdictEvent('acme', randomUUID()).value)),
    );
    await checkpointer.run();
    await checkpointer.run();
  }
  const notes = await store.from(0, 10);
  assert.deepEqual(
    notes.map(({ size }) => size),
    [3, 4, 304],
  );
  for (const { note, size } of notes) {
    const parsed = parseNote(note);
    assert.ok(isSignedBy(parsed, log.verifier) && isSignedBy(parsed, key.verifier));
    assert.deepEqual(parseCheckpoint(parsed.text), { origin, size, root: await stored.root(size) });
  }
  assert.deepEqual(checkpointer.state, { witnessed: 304, refusal: null });
  // A fresh process does not know what the witness knows, and finds out.
  const { text } = parseNote(notes[2]?.note ?? '');
  const line = await client().cosign(304, `${text}\n${signText(text, log.signer)}`);
  assert.match(line, /^\u2014 witness\.example\/w1 /);
  await new WitnessState(folder).write({ size: 999, root: Buffer.alloc(32) });
  await appending.append([leafOf('verdict.decisions', verdictEvent('acme', 'r').value)]);
  await assert.rejects(checkpointer.run(), WitnessRefusal);
  assert.match(checkpointer.state.refusal ?? '', /it has seen 999 leaves, the log has 305/);
  await new WitnessState(folder).write({ size: 300, root: Buffer.alloc(32) });
  await assert.rejects(checkpointer.run(), /does not continue the tree of 300 leaves/);
});
