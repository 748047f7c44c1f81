import type { CheckpointStore, StoredCheckpoint } from '../checkpoint/store.ts';
import type { Entry, EntryReader, Scope } from '../log/entries.ts';

/** What an export is made from. */
export interface ExportSources {
  /** Name of the log. */
  readonly origin: string;
  readonly entries: EntryReader;
  readonly checkpoints: CheckpointStore;
  /** Name of the witness whose checkpoints are exported. */
  readonly witness: string;
}

/** Version of the format. */
const version = 1;
const pageSize = 1000;

/**
 * The log up to its newest witnessed checkpoint, line by line, each ending with a newline. After a first line `log` come
 * all leaves in order, as `entry` with their bytes, or as `hash` alone where they belong to another tenant, and after
 * the leaves that it seals each `checkpoint`. `verifier/verify.py` checks it and says what each line holds.
 */
export async function* exportLines(sources: ExportSources, scope: Scope): AsyncGenerator<string> {
  yield line({ kind: 'log', origin: sources.origin, version });
  let previous = 0;
  for await (const { size, note } of witnessed(sources)) {
    for (let from = previous; from < size; from += pageSize) {
      yield await page(sources, scope, from, Math.min(from + pageSize, size));
    }
    yield line({ kind: 'checkpoint', previous, note });
    previous = size;
  }
}

/** Checkpoints that the witness signed, smallest first, until the one that is the newest when it begins. */
async function* witnessed({ checkpoints, witness }: ExportSources): AsyncGenerator<StoredCheckpoint> {
  const newest = await checkpoints.newest(witness);
  if (newest === undefined) return;
  for (let from = 1; from <= newest.size; ) {
    const some = await checkpoints.from(from, pageSize);
    for (const checkpoint of some) {
      if (checkpoint.size <= newest.size && checkpoint.witnesses.includes(witness)) yield checkpoint;
    }
    from = (some.at(-1)?.size ?? newest.size) + 1;
  }
}

/** Leaves of a range; none is left out, whosever it is. */
async function page({ entries }: ExportSources, scope: Scope, from: number, to: number): Promise<string> {
  const [hashes, own] = await Promise.all([entries.hashes(from, to), entries.list(scope, { from, limit: to - from })]);
  const readable = new Map(own.map((entry) => [entry.index, entry]));
  return hashes.map((hash, place) => line(leafLine(from + place, hash, readable.get(from + place)))).join('');
}

function leafLine(index: number, hash: Buffer, entry: Entry | undefined): object {
  const encoded = hash.toString('base64');
  return entry === undefined
    ? { kind: 'hash', index, hash: encoded }
    : { kind: 'entry', index, hash: encoded, leaf: entry.leaf };
}

const line = (content: object): string => `${JSON.stringify(content)}\n`;
