import { hash } from 'node:crypto';

/** Bytes of a hash. */
export const hashLength = 32;

/** The root of a tree without leaves: the hash of nothing. */
export const emptyRoot: Buffer = hash('sha256', '', 'buffer');

/** Hash of a leaf: SHA-256(0x00 ‖ data). Source: RFC 9162, section 2.1.1. */
export function leafHash(data: Uint8Array): Buffer {
  const input = Buffer.allocUnsafe(data.length + 1);
  input[0] = 0x00;
  input.set(data, 1);
  return hash('sha256', input, 'buffer');
}

const pair = Buffer.alloc(1 + 2 * hashLength, 0x01);

/** Hash of an inner node: SHA-256(0x01 ‖ left ‖ right). Source: RFC 9162, section 2.1.1. */
export function nodeHash(left: Uint8Array, right: Uint8Array): Buffer {
  // One buffer for all: the hash is computed before anybody else can use it.
  pair.set(left, 1);
  pair.set(right, 1 + hashLength);
  return hash('sha256', pair, 'buffer');
}
