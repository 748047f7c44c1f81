import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Database } from './database.ts';
import { canonical, sha256 } from './lineage.ts';
import type { Sessions } from './sessions.ts';

/** One turn of an approved session. */
export interface ApprovedTurn {
  readonly sessionId: string;
  readonly number: number;
  readonly prompt: string;
  readonly answer: string;
}

/** What an export wrote. */
export interface Exported {
  /** SHA-256 of `manifest.json`, which names the hash of every file. */
  readonly hash: string;
  readonly manifest: string;
  readonly turns: { readonly train: number; readonly heldOut: number };
}

/** There is too little approved data to train and to judge. */
export class TooLittleData extends Error {
  constructor(train: number, heldOut: number) {
    super(
      `the approved sessions give ${train} turns to train on and ${heldOut} to judge by; both need at least one: ` +
        'approve more sessions with completed turns',
    );
    this.name = 'TooLittleData';
  }
}

/** Every so many sessions one is held out. Which ones follows from their ids alone. */
const heldOutEvery = 5;

/** Whole sessions are held out: the turns of one conversation repeat each other. */
export const isHeldOut = (sessionId: string): boolean =>
  createHash('sha256').update(sessionId).digest().readUInt32BE(0) % heldOutEvery === 0;

/** Reads the completed turns of the approved sessions of one tenant, in a stable order. */
export async function approvedTurns(
  db: Database,
  sessions: Sessions,
  tenant: string,
): Promise<{ readonly turns: readonly ApprovedTurn[]; readonly approvals: readonly object[] }> {
  const approvals = await db
    .of(tenant)
    .selectFrom('approval')
    .select(['session_id as sessionId', 'approved_by as approvedBy', 'approved_at as approvedAt'])
    .where('withdrawn_at', 'is', null)
    .orderBy('session_id')
    .execute();
  const ids = approvals.map(({ sessionId }) => sessionId);
  if (ids.length === 0) return { turns: [], approvals: [] };
  const turns = await sessions
    .of(tenant)
    .selectFrom('turn')
    .select(['session_id as sessionId', 'number', 'prompt', 'answer'])
    .where('tenant', '=', tenant)
    .where('session_id', 'in', ids)
    .where('status', '=', 'completed')
    .where('answer', '<>', '')
    .orderBy('session_id')
    .orderBy('number')
    .execute();
  return { turns, approvals };
}

/**
 * Writes `train.jsonl`, `held-out.jsonl`, `approvals.jsonl` (who approved which session, and when) and `manifest.json`.
 * The same rows give the same bytes.
 * @throws TooLittleData
 */
export async function exportDataset(
  folder: string,
  tenant: string,
  { turns, approvals }: Awaited<ReturnType<typeof approvedTurns>>,
): Promise<Exported> {
  const heldOut = turns.filter(({ sessionId }) => isHeldOut(sessionId));
  const train = turns.filter(({ sessionId }) => !isHeldOut(sessionId));
  if (train.length === 0 || heldOut.length === 0) throw new TooLittleData(train.length, heldOut.length);
  await mkdir(folder, { recursive: true });
  const contents = { 'train.jsonl': train, 'held-out.jsonl': heldOut, 'approvals.jsonl': approvals };
  const files: Record<string, object> = {};
  for (const [name, rows] of Object.entries(contents)) {
    // Dates become text before the canonical form sorts the fields.
    const text = rows.map((row) => `${canonical(JSON.parse(JSON.stringify(row)))}\n`).join('');
    await writeFile(join(folder, name), text, { mode: 0o600 });
    files[name] = { sha256: sha256(text), bytes: Buffer.byteLength(text), lines: rows.length };
  }
  const manifest = canonical({ version: 1, tenant, files });
  await writeFile(join(folder, 'manifest.json'), manifest);
  return { hash: sha256(manifest), manifest, turns: { train: train.length, heldOut: heldOut.length } };
}
