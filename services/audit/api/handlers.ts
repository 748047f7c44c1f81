import { event } from '@somagent/events';
import { type Caller, type Handlers, Problem, platformTenant, tenantOrNull } from '@somagent/governance';
import { type Verifier, verifierKey } from '../checkpoint/note.ts';
import type { AuditLog } from '../log/audit-log.ts';
import type { Entry, Scope } from '../log/entries.ts';
import { leafOf } from '../log/leaf.ts';
import type { StoredTree } from '../log/tree.ts';
import { ProofRangeError } from '../merkle/index.ts';
import { type ExportSources, exportLines } from './export.ts';
import type { Routes } from './routes.ts';

/** What the handlers work with. */
export interface HandlerDependencies extends ExportSources {
  readonly log: AuditLog;
  readonly tree: StoredTree;
  readonly keys: { readonly log: Verifier; readonly witness: Verifier };
}

const verdictTopic = 'verdict.decisions';

/** The handlers of the routes. A tenant's caller sees entries of its own tenant only; the platform's own sees all. */
export function createHandlers(dependencies: HandlerDependencies): Handlers<Routes> {
  const { entries, checkpoints, tree, keys, witness } = dependencies;

  const entryAt = async (caller: Caller, index: number): Promise<Entry> => {
    const entry = await entries.at(scopeOf(caller), index);
    if (entry === undefined) throw new Problem('not-found', `entry ${index} does not exist`);
    return entry;
  };

  return {
    listEntries: async (context) => {
      const { from, limit, requestId, topic } = context.req.valid('query');
      const scope = scopeOf(context.get('caller'));
      const found = await entries.list(scope, { from, limit: limit + 1, requestId, topic });
      const page = found.slice(0, limit);
      return context.json({ entries: page.map(shown), next: found[limit]?.index ?? null }, 200);
    },

    getEntry: async (context) => {
      const { index } = context.req.valid('param');
      return context.json(shown(await entryAt(context.get('caller'), index)), 200);
    },

    getCheckpoint: async (context) => {
      const newest = await checkpoints.newest(witness);
      if (newest === undefined) throw new Problem('not-found', 'nothing is witnessed yet: try again in a second');
      return context.text(newest.note, 200);
    },

    getKeys: async (context) => context.json({ log: verifierKey(keys.log), witness: verifierKey(keys.witness) }, 200),

    proveInclusion: async (context) => {
      const { index, size = await tree.size() } = context.req.valid('query');
      const { hash } = await entryAt(context.get('caller'), index);
      const hashes = await provable(tree, size, () => tree.inclusion(index, size));
      return context.json({ index, size, leafHash: hash.toString('base64'), hashes: hashes.map(base64) }, 200);
    },

    proveConsistency: async (context) => {
      const { from, to = await tree.size() } = context.req.valid('query');
      const hashes = await provable(tree, to, () => tree.consistency(from, to));
      return context.json({ from, to, hashes: hashes.map(base64) }, 200);
    },

    exportLog: async (context) => {
      const caller = context.get('caller');
      const newest = await checkpoints.newest(witness);
      await recordExport(dependencies.log, caller, context.get('requestId'), newest?.size ?? 0);
      const lines = ReadableStream.from(encoded(exportLines(dependencies, scopeOf(caller))));
      return context.body(lines, 200, { 'content-type': 'application/x-ndjson' });
    },

    getVerdicts: async (context) => {
      const { requestId } = context.req.valid('param');
      const scope = scopeOf(context.get('caller'));
      const found = await entries.list(scope, { from: 0, limit: 100, requestId, topic: verdictTopic });
      if (found.length === 0) throw new Problem('not-found', `no verdict about request ${requestId} is recorded here`);
      const verdicts = found.map(({ index, leaf }) => ({ index, event: JSON.parse(leaf).event }));
      return context.json({ requestId, verdicts }, 200);
    },
  };
}

const scopeOf = ({ tenant }: Caller): Scope => (tenant === platformTenant ? 'platform' : { tenant });

const base64 = (hash: Buffer) => hash.toString('base64');

const shown = ({ index, hash, leaf }: Entry) => ({ index, hash: base64(hash), leaf });

/** Sizes that the log never had are the caller's mistake. */
async function provable<Proof>(tree: StoredTree, size: number, prove: () => Promise<Proof>): Promise<Proof> {
  const stored = await tree.size();
  if (size > stored) throw new Problem('invalid-request', `the log has ${stored} entries, not ${size}`);
  try {
    return await prove();
  } catch (error) {
    if (error instanceof ProofRangeError) throw new Problem('invalid-request', error.message);
    throw error;
  }
}

/** An export is recorded before its first line leaves, in the log itself. */
async function recordExport(log: AuditLog, caller: Caller, requestId: string, to: number): Promise<void> {
  const { topic, value } = event('audit.control', 'audit.exported', {
    tenant: tenantOrNull(caller.tenant),
    actor: { kind: caller.kind, id: caller.subject, client: caller.client },
    requestId,
    data: { from: 0, to },
  });
  await log.append([leafOf(topic, value)]);
}

async function* encoded(lines: AsyncIterable<string>): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder();
  for await (const line of lines) yield encoder.encode(line);
}
