import type { TenantDatabase } from '@somagent/kit';
import { type Kysely, sql } from 'kysely';
import type { Database } from '../log/database.ts';

/** A checkpoint as it is stored, with every cosignature that came. */
export interface StoredCheckpoint {
  readonly size: number;
  /** The signed note; lines of witnesses follow that of the log. */
  readonly note: string;
  readonly witnesses: readonly string[];
}

/** The signed checkpoints of the log. */
export class CheckpointStore {
  readonly #db: Kysely<Database>;

  constructor(database: TenantDatabase<Database>) {
    this.#db = database.platform;
  }

  /** Stores a signed checkpoint; one of that size which is there stays. */
  async add(size: number, note: string): Promise<void> {
    await sql`
      insert into audit_checkpoint (size, note) values (${size}, ${note}) on conflict do nothing`.execute(this.#db);
  }

  /** Stores the line of a witness below a checkpoint; one that is there stays. */
  async cosign(size: number, witness: string, line: string): Promise<void> {
    await sql`
      insert into audit_cosignature (size, witness, line) values (${size}, ${witness}, ${line})
      on conflict do nothing`.execute(this.#db);
  }

  /** The newest checkpoint, or the newest that a witness signed. */
  async newest(witness?: string): Promise<StoredCheckpoint | undefined> {
    const signed =
      witness === undefined
        ? sql`true`
        : sql`exists (select 1 from audit_cosignature s where s.size = c.size and s.witness = ${witness})`;
    const [found] = await this.#select(sql`where ${signed} order by c.size desc limit 1`);
    return found;
  }

  /** Checkpoints of sizes from `from` on, smallest first, at most `limit`. */
  async from(from: number, limit: number): Promise<StoredCheckpoint[]> {
    return this.#select(sql`where c.size >= ${from} order by c.size limit ${limit}`);
  }

  async #select(rest: ReturnType<typeof sql>): Promise<StoredCheckpoint[]> {
    const { rows } = await sql<{ size: string; note: string; lines: { witness: string; line: string }[] }>`
      select c.size, c.note, coalesce((
        select json_agg(json_build_object('witness', s.witness, 'line', s.line) order by s.witness)
        from audit_cosignature s where s.size = c.size), '[]') as lines
      from audit_checkpoint c ${rest}`.execute(this.#db);
    return rows.map(({ size, note, lines }) => ({
      size: Number(size),
      note: [note, ...lines.map(({ line }) => line)].join(''),
      witnesses: lines.map(({ witness }) => witness),
    }));
  }
}
