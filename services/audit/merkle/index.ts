export { CompactRange, type NodeListener } from './compact-range.ts';
export { emptyRoot, hashLength, leafHash, nodeHash } from './hashing.ts';
export { foldRight, type LeafRange, leavesOf, type NodeId, nodeKey, perfectNodes, splitPoint } from './nodes.ts';
export {
  consistencyRanges,
  inclusionRanges,
  type NodeHashes,
  nodesOf,
  ProofRangeError,
  proofFrom,
  verifyConsistency,
  verifyInclusion,
} from './proofs.ts';
