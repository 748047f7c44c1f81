import { nodeHash } from './hashing.ts';
import { foldRight, type LeafRange, type NodeId, nodeKey, perfectNodes, splitPoint } from './nodes.ts';

/** A request for a proof that no tree can answer. */
export class ProofRangeError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'ProofRangeError';
  }
}

/** Hashes of perfect subtrees, by {@link nodeKey}. */
export type NodeHashes = ReadonlyMap<string, Buffer>;

/**
 * The ranges whose roots prove that leaf `index` is in the tree of `size` leaves, from the leaf upwards.
 * Source: RFC 9162, section 2.1.3.1 (PATH).
 */
export function inclusionRanges(index: number, size: number): LeafRange[] {
  if (!(Number.isSafeInteger(index) && index >= 0 && index < size)) {
    throw new ProofRangeError(`index ${index} is not in a tree of ${size} leaves: ask for 0 to ${size - 1}`);
  }
  const ranges: LeafRange[] = [];
  let [from, to] = [0, size];
  while (to - from > 1) {
    const middle = from + splitPoint(to - from);
    const left = index < middle;
    ranges.unshift(left ? { from: middle, to } : { from, to: middle });
    [from, to] = left ? [from, middle] : [middle, to];
  }
  return ranges;
}

/**
 * The ranges whose roots prove that the tree of `older` leaves is the beginning of the tree of `newer` leaves.
 * Source: RFC 9162, section 2.1.4.1 (PROOF, SUBPROOF).
 */
export function consistencyRanges(older: number, newer: number): LeafRange[] {
  if (!(Number.isSafeInteger(older) && older >= 0 && older <= newer)) {
    throw new ProofRangeError(
      `a tree of ${older} leaves is not the beginning of one of ${newer}: ask for 0 to ${newer}`,
    );
  }
  if (older === 0 || older === newer) return [];
  const ranges: LeafRange[] = [];
  let [from, to] = [0, newer];
  while (to !== older) {
    const middle = from + splitPoint(to - from);
    const left = older <= middle;
    ranges.unshift(left ? { from: middle, to } : { from, to: middle });
    [from, to] = left ? [from, middle] : [middle, to];
  }
  // The verifier knows the old root itself, unless the old tree was split.
  if (from !== 0) ranges.unshift({ from, to });
  return ranges;
}

/** Every perfect subtree whose hash a proof over these ranges takes. */
export const nodesOf = (ranges: readonly LeafRange[]): NodeId[] => ranges.flatMap(perfectNodes);

/** The proof: one hash for each range. @throws Error naming a node that is not there */
export function proofFrom(ranges: readonly LeafRange[], hashes: NodeHashes): Buffer[] {
  const hashOf = (node: NodeId): Buffer => {
    const found = hashes.get(nodeKey(node));
    if (found === undefined) throw new Error(`node ${node.index} of level ${node.level} is not stored`);
    return found;
  };
  return ranges.map((range) => foldRight(perfectNodes(range).map(hashOf)));
}

/** Whether the proof shows the leaf at `index` in the tree. Source: RFC 9162, section 2.1.3.2. */
export function verifyInclusion(
  leaf: { readonly index: number; readonly hash: Buffer },
  tree: { readonly size: number; readonly root: Buffer },
  proof: readonly Buffer[],
): boolean {
  if (!(leaf.index >= 0 && leaf.index < tree.size)) return false;
  let place = leaf.index;
  let last = tree.size - 1;
  let root = leaf.hash;
  for (const sibling of proof) {
    if (last === 0) return false;
    if (place % 2 === 1 || place === last) {
      root = nodeHash(sibling, root);
      while (place % 2 === 0 && place !== 0) [place, last] = [half(place), half(last)];
    } else {
      root = nodeHash(root, sibling);
    }
    [place, last] = [half(place), half(last)];
  }
  return last === 0 && root.equals(tree.root);
}

/** Whether the proof shows that the newer tree only appends to the older. Source: RFC 9162, section 2.1.4.2. */
export function verifyConsistency(
  older: { readonly size: number; readonly root: Buffer },
  newer: { readonly size: number; readonly root: Buffer },
  proof: readonly Buffer[],
): boolean {
  if (older.size > newer.size) return false;
  if (older.size === newer.size) return proof.length === 0 && older.root.equals(newer.root);
  if (older.size === 0) return proof.length === 0;
  let place = older.size - 1;
  let last = newer.size - 1;
  while (place % 2 === 1) [place, last] = [half(place), half(last)];
  // Without odd bits left the old tree is a perfect subtree: its root begins the path and is not sent.
  const [seed, ...rest] = place === 0 ? [older.root, ...proof] : proof;
  if (seed === undefined) return false;
  let [oldRoot, newRoot] = [seed, seed];
  for (const sibling of rest) {
    if (last === 0) return false;
    if (place % 2 === 1 || place === last) {
      oldRoot = nodeHash(sibling, oldRoot);
      newRoot = nodeHash(sibling, newRoot);
      while (place % 2 === 0 && place !== 0) [place, last] = [half(place), half(last)];
    } else {
      newRoot = nodeHash(newRoot, sibling);
    }
    [place, last] = [half(place), half(last)];
  }
  return last === 0 && oldRoot.equals(older.root) && newRoot.equals(newer.root);
}

const half = (n: number): number => Math.floor(n / 2);
