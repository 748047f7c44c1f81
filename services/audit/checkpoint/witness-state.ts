import { open, readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { TreeHead } from '../log/audit-log.ts';
import { emptyRoot } from '../merkle/index.ts';

const schema = z.strictObject({ size: z.int().min(0), root: z.base64().length(44) });

/** The last head that a witness has vouched for, in a file that survives the loss of power. */
export class WitnessState {
  readonly #file: string;

  /** @param directory a volume of the witness alone; who can write there can make it forget */
  constructor(directory: string) {
    this.#file = join(directory, 'head.json');
  }

  /** The head; the empty tree before the first one. @throws Error when the file is there and can't be read */
  async read(): Promise<TreeHead> {
    let text: string;
    try {
      text = await readFile(this.#file, 'utf8');
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return { size: 0, root: emptyRoot };
      throw error;
    }
    const { size, root } = schema.parse(JSON.parse(text));
    return { size, root: Buffer.from(root, 'base64') };
  }

  /** Stores the head; it is on the disk when this returns. */
  async write({ size, root }: TreeHead): Promise<void> {
    const temporary = `${this.#file}.new`;
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(JSON.stringify({ size, root: root.toString('base64') }));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, this.#file);
    const directory = await open(dirname(this.#file));
    await directory.sync().finally(() => directory.close());
  }
}
