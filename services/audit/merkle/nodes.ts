import { nodeHash } from './hashing.ts';

/** A perfect subtree: it covers the 2^level leaves from index · 2^level on, and never changes once they are there. */
export interface NodeId {
  readonly level: number;
  readonly index: number;
}

/** Consecutive leaves: `from` inclusive, `to` exclusive. */
export interface LeafRange {
  readonly from: number;
  readonly to: number;
}

/** The key of a node in a map. */
export const nodeKey = ({ level, index }: NodeId): string => `${level}/${index}`;

/** The leaves below a node. */
export const leavesOf = ({ level, index }: NodeId): LeafRange => ({
  from: index * 2 ** level,
  to: (index + 1) * 2 ** level,
});

/** Largest power of two that is less than `n` (n ≥ 2): where RFC 9162 splits a tree of `n` leaves. */
export function splitPoint(n: number): number {
  let power = 1;
  while (power * 2 < n) power *= 2;
  return power;
}

/**
 * The perfect subtrees that make up a range which a split of RFC 9162 produced, left to right, each smaller than the
 * one before it.
 */
export function perfectNodes({ from, to }: LeafRange): NodeId[] {
  const nodes: NodeId[] = [];
  for (let start = from; start < to; ) {
    let level = 0;
    while (start % 2 ** (level + 1) === 0 && start + 2 ** (level + 1) <= to) level += 1;
    nodes.push({ level, index: start / 2 ** level });
    start += 2 ** level;
  }
  return nodes;
}

/** The root over perfect subtrees of falling size: folded from the right. */
export function foldRight(hashes: readonly Buffer[]): Buffer {
  const last = hashes.at(-1);
  if (last === undefined) throw new Error('a range without leaves has no root of its own');
  return hashes.slice(0, -1).reduceRight((right, left) => nodeHash(left, right), last);
}
