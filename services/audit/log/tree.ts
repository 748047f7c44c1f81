import type { TenantDatabase } from '@somagent/kit';
import { type Kysely, sql } from 'kysely';
import {
  CompactRange,
  consistencyRanges,
  emptyRoot,
  foldRight,
  inclusionRanges,
  type LeafRange,
  leavesOf,
  type NodeId,
  nodeKey,
  nodesOf,
  perfectNodes,
  proofFrom,
} from '../merkle/index.ts';
import { type Database, storedLevel } from './database.ts';

const block = 2 ** storedLevel;

/** Proofs and roots of the stored tree, at any size that it has had. Hashes only: it shows no entry to anybody. */
export class StoredTree {
  readonly #db: Kysely<Database>;

  constructor(database: TenantDatabase<Database>) {
    this.#db = database.platform;
  }

  /** Number of leaves that are durable. */
  async size(): Promise<number> {
    const { rows } = await sql<{ size: string }>`
      select size from audit_batch order by id desc limit 1`.execute(this.#db);
    return Number(rows[0]?.size ?? 0);
  }

  /** The root that the tree had at a size. */
  async root(size: number): Promise<Buffer> {
    if (size === 0) return emptyRoot;
    const nodes = perfectNodes({ from: 0, to: size });
    const hashes = await this.#hashes(nodes);
    return foldRight(nodes.map((node) => required(hashes, node)));
  }

  /** Audit path of a leaf. @throws ProofRangeError when the tree of that size has no such leaf */
  async inclusion(index: number, size: number): Promise<Buffer[]> {
    return this.#proof(inclusionRanges(index, size));
  }

  /** Proof that the tree of `older` leaves is the beginning of that of `newer`. @throws ProofRangeError */
  async consistency(older: number, newer: number): Promise<Buffer[]> {
    return this.#proof(consistencyRanges(older, newer));
  }

  async #proof(ranges: readonly LeafRange[]): Promise<Buffer[]> {
    return proofFrom(ranges, await this.#hashes(nodesOf(ranges)));
  }

  async #hashes(nodes: readonly NodeId[]): Promise<Map<string, Buffer>> {
    const stored = nodes.filter(({ level }) => level >= storedLevel);
    const small = nodes.filter(({ level }) => level < storedLevel);
    const maps = await Promise.all([this.#storedNodes(stored), this.#smallNodes(small)]);
    return new Map(maps.flatMap((map) => [...map]));
  }

  async #storedNodes(nodes: readonly NodeId[]): Promise<Map<string, Buffer>> {
    if (nodes.length === 0) return new Map();
    const { rows } = await sql<{ level: number; index: string; hash: Buffer }>`
      select level, index, hash from audit_node where (level, index) in (
        select * from unnest(${nodes.map(({ level }) => level)}::smallint[], ${nodes.map(({ index }) => index)}::bigint[])
      )`.execute(this.#db);
    return new Map(rows.map(({ level, index, hash }) => [nodeKey({ level, index: Number(index) }), hash]));
  }

  /** Subtrees below the stored level, from the leaves of the few blocks that they lie in. */
  async #smallNodes(nodes: readonly NodeId[]): Promise<Map<string, Buffer>> {
    const starts = new Set(nodes.map((node) => Math.floor(leavesOf(node).from / block) * block));
    const leaves = new Map<number, Buffer>();
    for (const start of starts) {
      const { rows } = await sql<{ index: string; hash: Buffer }>`
        select index, hash from audit_leaf where index >= ${start} and index < ${start + block}`.execute(this.#db);
      for (const { index, hash } of rows) leaves.set(Number(index), hash);
    }
    return new Map(nodes.map((node) => [nodeKey(node), rootOf(leaves, leavesOf(node))]));
  }
}

function rootOf(leaves: ReadonlyMap<number, Buffer>, { from, to }: LeafRange): Buffer {
  const range = new CompactRange();
  for (let index = from; index < to; index += 1) {
    const hash = leaves.get(index);
    if (hash === undefined) throw new Error(`leaf ${index} is not stored: the log has lost an entry`);
    range.append(hash);
  }
  return range.root();
}

function required(hashes: ReadonlyMap<string, Buffer>, node: NodeId): Buffer {
  const hash = hashes.get(nodeKey(node));
  if (hash === undefined) throw new Error(`node ${nodeKey(node)} is not stored: the log has lost a subtree`);
  return hash;
}
