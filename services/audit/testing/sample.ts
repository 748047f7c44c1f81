import { randomUUID } from 'node:crypto';
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createLogger } from '@somagent/kit';
import { exportLines } from '../api/export.ts';
import { Checkpointer } from '../checkpoint/checkpointer.ts';
import { verifierKey } from '../checkpoint/note.ts';
import { CheckpointStore } from '../checkpoint/store.ts';
import { Witness } from '../checkpoint/witness.ts';
import { WitnessClient } from '../checkpoint/witness-client.ts';
import { WitnessState } from '../checkpoint/witness-state.ts';
import { AuditLog } from '../log/audit-log.ts';
import { EntryReader } from '../log/entries.ts';
import { leafOf } from '../log/leaf.ts';
import { StoredTree } from '../log/tree.ts';
import { startAuditDatabase } from './database.ts';
import { verdictEvent } from './events.ts';
import { makeKey } from './keys.ts';
import { startWitnessServer } from './witness-server.ts';

const origin = 'audit.example/log';
const tenants = ['acme', 'globex', null];

/**
 * Fills a real log, signed and witnessed, and writes to a folder what an auditor has: the export of the operator, that
 * of the tenant acme, the newest checkpoint, proofs of all entries at its size, and the keys; and the log's private key,
 * for attacks.
 * @param batches leaves under each checkpoint
 */
export async function writeSample(folder: string, batches: readonly number[]): Promise<void> {
  const [log, witnessKey] = [makeKey(origin, 'log'), makeKey('witness.example/w1', 'witness')];
  const state = join(folder, 'witness');
  await mkdir(state, { recursive: true });
  const witness = new Witness({ origin, verifier: log.verifier }, witnessKey.signer, new WitnessState(state));
  const server = await startWitnessServer(witness);
  const audit = await startAuditDatabase();
  try {
    const [tree, store] = [new StoredTree(audit.database), new CheckpointStore(audit.database)];
    const client = new WitnessClient({ url: server.url, verifier: witnessKey.verifier, tree, fetch: server.fetch });
    const logger = createLogger({ service: 'audit-sample', level: 'error' });
    const checkpointer = new Checkpointer({ origin, signer: log.signer, tree, store, witness: client, log: logger });
    const appending = new AuditLog(audit.database);
    for (const count of batches) {
      const events = Array.from({ length: count }, (_, place) =>
        verdictEvent(tenants[place % 3] ?? null, randomUUID()),
      );
      await appending.append(events.map(({ topic, value }) => leafOf(topic, value)));
      await checkpointer.run();
    }
    const sources = { origin, entries: new EntryReader(audit.database), checkpoints: store, witness: client.name };
    await writeFile(join(folder, 'export.ndjson'), exportLines(sources, 'platform'));
    await writeFile(join(folder, 'export-acme.ndjson'), exportLines(sources, { tenant: 'acme' }));
    await writeFile(join(folder, 'checkpoint.txt'), (await store.newest(client.name))?.note ?? '');
    await writeFile(join(folder, 'proofs.ndjson'), proofLines(tree, new EntryReader(audit.database)));
    const keys = { log: verifierKey(log.verifier), witness: verifierKey(witnessKey.verifier) };
    await writeFile(join(folder, 'keys.json'), JSON.stringify(keys));
    await copyFile(log.privateFile, join(folder, 'log-private.pem'));
  } finally {
    await audit.stop();
    await server.stop();
  }
}

/** Proofs as the API answers them, one a line. */
async function* proofLines(tree: StoredTree, entries: EntryReader): AsyncGenerator<string> {
  const size = await tree.size();
  for (const [index, hash] of (await entries.hashes(0, size)).entries()) {
    const hashes = (await tree.inclusion(index, size)).map((each) => each.toString('base64'));
    yield `${JSON.stringify({ index, size, leafHash: hash.toString('base64'), hashes })}\n`;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const folder = process.argv[2] ?? join(tmpdir(), 'somagent-audit-sample');
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await writeSample(folder, [1, 7, 16, 3, 40, 1, 29, 12, 5, 26]);
  process.stdout.write(`${folder}\n`);
}
