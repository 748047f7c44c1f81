import { emptyRoot, hashLength, nodeHash } from './hashing.ts';
import { foldRight, type NodeId, perfectNodes } from './nodes.ts';

/** Learns of every perfect subtree at the moment when its last leaf is appended. */
export type NodeListener = (node: NodeId, hash: Buffer) => void;

/**
 * What has to be known of a tree in order to append to it: the roots of its perfect subtrees, largest first; at most
 * one for each bit of the size.
 */
export class CompactRange {
  #size: number;
  readonly #hashes: Buffer[];

  constructor(size = 0, hashes: readonly Buffer[] = []) {
    const expected = perfectNodes({ from: 0, to: size }).length;
    if (hashes.length !== expected) {
      throw new Error(`a tree of ${size} leaves has ${expected} perfect subtrees, not ${hashes.length}`);
    }
    this.#size = size;
    this.#hashes = [...hashes];
  }

  /** From the bytes of {@link encode}. @throws Error when they don't fit the size */
  static decode(size: number, bytes: Buffer): CompactRange {
    if (bytes.length % hashLength !== 0) throw new Error(`${bytes.length} bytes are no whole number of hashes`);
    const count = bytes.length / hashLength;
    return new CompactRange(
      size,
      Array.from({ length: count }, (_, place) => bytes.subarray(place * hashLength, (place + 1) * hashLength)),
    );
  }

  /** Number of leaves. */
  get size(): number {
    return this.#size;
  }

  /** The hashes, largest subtree first, one after the other. */
  encode(): Buffer {
    return Buffer.concat(this.#hashes);
  }

  /** A second range that grows on its own. */
  copy(): CompactRange {
    return new CompactRange(this.#size, this.#hashes);
  }

  /** Appends a leaf by its hash. */
  append(hash: Buffer, completed?: NodeListener): void {
    let node = { level: 0, index: this.#size };
    let joined = hash;
    completed?.(node, joined);
    while (node.index % 2 === 1) {
      joined = nodeHash(this.#hashes.pop() as Buffer, joined);
      node = { level: node.level + 1, index: (node.index - 1) / 2 };
      completed?.(node, joined);
    }
    this.#hashes.push(joined);
    this.#size += 1;
  }

  /** The root of the tree. */
  root(): Buffer {
    return this.#size === 0 ? emptyRoot : foldRight(this.#hashes);
  }
}
