import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  CompactRange,
  consistencyRanges,
  inclusionRanges,
  leafHash,
  nodeKey,
  ProofRangeError,
  proofFrom,
  verifyConsistency,
  verifyInclusion,
} from './index.ts';

// The definitions of RFC 9162, section 2.1, word for word and sharing nothing with the code under test.
const sha256 = (...parts: readonly Uint8Array[]) => createHash('sha256').update(Buffer.concat(parts)).digest();

function split(n: number): number {
  let k = 1;
  while (2 * k < n) k = 2 * k;
  return k;
}

function MTH(D: readonly Buffer[]): Buffer {
  if (D.length === 0) return sha256();
  if (D.length === 1) return sha256(Buffer.from([0]), D[0] as Buffer);
  const k = split(D.length);
  return sha256(Buffer.from([1]), MTH(D.slice(0, k)), MTH(D.slice(k)));
}

function PATH(m: number, D: readonly Buffer[]): Buffer[] {
  if (D.length === 1) return [];
  const k = split(D.length);
  return m < k ? [...PATH(m, D.slice(0, k)), MTH(D.slice(k))] : [...PATH(m - k, D.slice(k)), MTH(D.slice(0, k))];
}

function SUBPROOF(m: number, D: readonly Buffer[], b: boolean): Buffer[] {
  const n = D.length;
  if (m === n) return b ? [] : [MTH(D)];
  const k = split(n);
  return m <= k
    ? [...SUBPROOF(m, D.slice(0, k), b), MTH(D.slice(k))]
    : [...SUBPROOF(m - k, D.slice(k), false), MTH(D.slice(0, k))];
}

/** A tree grown leaf by leaf, with every perfect subtree that was completed on the way. */
function grow(leaves: readonly Buffer[]) {
  const range = new CompactRange();
  const nodes = new Map<string, Buffer>();
  for (const leaf of leaves) range.append(leafHash(leaf), (node, hash) => nodes.set(nodeKey(node), hash));
  return { range, nodes, root: range.root() };
}

const leavesOf = (count: number) => Array.from({ length: count }, (_, number) => Buffer.from(`leaf ${number}`));
const leaves = fc
  .array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 130 })
  .map((each) => each.map(Buffer.from));
const text = (hashes: readonly Buffer[]) => hashes.map((each) => each.toString('hex'));

test('roots are those of the definition, for every size up to 260 and for leaves of any bytes', () => {
  for (let size = 0; size <= 260; size += 1) {
    assert.equal(grow(leavesOf(size)).root.toString('hex'), MTH(leavesOf(size)).toString('hex'), `size ${size}`);
  }
  fc.assert(fc.property(leaves, (data) => grow(data).root.equals(MTH(data))));
});

test('known answers of Certificate Transparency', () => {
  const inputs = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'];
  const data = inputs.map((hex) => Buffer.from(hex, 'hex'));
  // Source: certificate-transparency, merkletree/merkle_tree_test (roots of 1, 5 and 8 leaves).
  const roots = {
    1: '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
    5: '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
    8: '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
  };
  for (const [size, root] of Object.entries(roots)) {
    assert.equal(grow(data.slice(0, Number(size))).root.toString('hex'), root);
  }
});

test('inclusion proofs are those of the definition and verify, for every leaf of every size up to 70', () => {
  for (let size = 1; size <= 70; size += 1) {
    const data = leavesOf(size);
    const { nodes, root } = grow(data);
    for (let index = 0; index < size; index += 1) {
      const proof = proofFrom(inclusionRanges(index, size), nodes);
      assert.deepEqual(text(proof), text(PATH(index, data)), `leaf ${index} of ${size}`);
      assert.ok(verifyInclusion({ index, hash: leafHash(data[index] as Buffer) }, { size, root }, proof));
    }
  }
});

test('consistency proofs are those of the definition and verify, for every pair of sizes up to 70', () => {
  for (let newer = 1; newer <= 70; newer += 1) {
    const data = leavesOf(newer);
    const { nodes, root } = grow(data);
    for (let older = 0; older <= newer; older += 1) {
      const proof = proofFrom(consistencyRanges(older, newer), nodes);
      const expected = older === 0 ? [] : SUBPROOF(older, data, true);
      assert.deepEqual(text(proof), text(expected), `${older} of ${newer}`);
      const old = { size: older, root: MTH(data.slice(0, older)) };
      assert.ok(verifyConsistency(old, { size: newer, root }, proof), `${older} of ${newer}`);
    }
  }
});

test('a proof with any one bit changed, a hash missing or one too many proves nothing', () => {
  const place = fc.nat();
  fc.assert(
    fc.property(leaves, place, place, fc.constantFrom('flip', 'drop', 'add'), (data, a, b, change) => {
      const { nodes, root } = grow(data);
      const tree = { size: data.length, root };
      const index = a % data.length;
      const hash = leafHash(data[index] as Buffer);
      const inclusion = spoil(proofFrom(inclusionRanges(index, data.length), nodes), b, change);
      const older = 1 + (b % data.length);
      const consistency = spoil(proofFrom(consistencyRanges(older, data.length), nodes), a, change);
      const old = { size: older, root: MTH(data.slice(0, older)) };
      return (
        (inclusion === undefined || !verifyInclusion({ index, hash }, tree, inclusion)) &&
        (consistency === undefined || !verifyConsistency(old, tree, consistency))
      );
    }),
  );
});

function spoil(proof: readonly Buffer[], seed: number, change: string): Buffer[] | undefined {
  const spoiled = proof.map((each) => Buffer.from(each));
  if (change === 'add') return [...spoiled, leafHash(Buffer.from('one too many'))];
  const victim = spoiled[seed % Math.max(1, spoiled.length)];
  if (victim === undefined) return undefined;
  if (change === 'drop') return spoiled.filter((each) => each !== victim);
  const byte = seed % victim.length;
  victim[byte] = (victim[byte] as number) ^ (1 << (seed % 8));
  return spoiled;
}

test('a rewritten leaf, a wrong index and a shorter tree prove nothing', () => {
  const data = leavesOf(53);
  const { nodes, root } = grow(data);
  const proof = proofFrom(inclusionRanges(20, 53), nodes);
  const hash = leafHash(data[20] as Buffer);
  assert.ok(verifyInclusion({ index: 20, hash }, { size: 53, root }, proof));
  assert.ok(!verifyInclusion({ index: 21, hash }, { size: 53, root }, proof));
  assert.ok(!verifyInclusion({ index: 53, hash }, { size: 53, root }, proof));
  assert.ok(!verifyInclusion({ index: 20, hash: leafHash(Buffer.from('other')) }, { size: 53, root }, proof));
  const forked = { size: 30, root: MTH([...leavesOf(29), Buffer.from('other')]) };
  assert.ok(!verifyConsistency(forked, { size: 53, root }, proofFrom(consistencyRanges(30, 53), nodes)));
  assert.ok(!verifyConsistency({ size: 53, root }, forked, []));
});

test('a range survives being stored, and refuses bytes that do not fit its size', () => {
  fc.assert(
    fc.property(leaves, leaves, (before, after) => {
      const { range } = grow(before);
      const restored = CompactRange.decode(range.size, range.encode());
      for (const leaf of after) restored.append(leafHash(leaf));
      return restored.root().equals(MTH([...before, ...after])) && range.root().equals(MTH(before));
    }),
  );
  assert.throws(() => CompactRange.decode(3, Buffer.alloc(32)), /3 leaves has 2 perfect subtrees, not 1/);
  assert.throws(() => CompactRange.decode(1, Buffer.alloc(31)), /31 bytes/);
});

test('a proof is refused for what the tree does not have, and a missing node is named', () => {
  assert.throws(() => inclusionRanges(5, 5), ProofRangeError);
  assert.throws(() => inclusionRanges(-1, 5), ProofRangeError);
  assert.throws(() => inclusionRanges(0.5, 5), ProofRangeError);
  assert.throws(() => consistencyRanges(6, 5), ProofRangeError);
  assert.throws(() => proofFrom(inclusionRanges(0, 4), new Map()), /node 1 of level 0 is not stored/);
});
