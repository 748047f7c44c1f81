import type { QuotaTables } from '@somagent/governance';
import type { Generated } from 'kysely';

/** Entries, in order. Rows are never changed or removed. */
export interface LeafTable {
  /** bigint: the place in the tree, from 0 without a gap. */
  index: string;
  event_id: string;
  tenant: string | null;
  request_id: string | null;
  topic: string;
  /** The hashed bytes, UTF-8. */
  leaf: string;
  hash: Buffer;
}

/** Perfect subtrees of 256 leaves and more; smaller ones are computed from the hashes of the leaves. */
export interface NodeTable {
  level: number;
  index: string;
  hash: Buffer;
}

/** What one transaction appended: the newest row is the state of the log. */
export interface BatchTable {
  id: string;
  size: string;
  root: Buffer;
  /** Bytes of the compact range. */
  frontier: Buffer;
  /** `<topic>/<partition>` → the next offset to read. */
  offsets: Record<string, string>;
  committed_at: Generated<Date>;
}

/** Signed checkpoints, as notes. */
export interface CheckpointTable {
  size: string;
  note: string;
  created_at: Generated<Date>;
}

/** Signatures of witnesses below a checkpoint. */
export interface CosignatureTable {
  size: string;
  witness: string;
  line: string;
  created_at: Generated<Date>;
}

/** The tables of the database `audit`. */
export interface Database extends QuotaTables {
  audit_leaf: LeafTable;
  audit_node: NodeTable;
  audit_batch: BatchTable;
  audit_checkpoint: CheckpointTable;
  audit_cosignature: CosignatureTable;
}

/** Level from which subtrees are stored. */
export const storedLevel = 8;
