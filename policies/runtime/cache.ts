import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** The last good bundle on disk, so that a restart while the store is away still has a policy. */
export class BundleCache {
  readonly #file: string;
  readonly #folder: string;

  /** @param folder A folder of this process alone; made when it is absent. */
  constructor(folder: string) {
    this.#folder = folder;
    this.#file = join(folder, 'bundle.tar.gz');
  }

  /** The archive, or undefined when there is none. What it holds is verified like one from the store. */
  async read(): Promise<Buffer | undefined> {
    try {
      return await readFile(this.#file);
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Keeps the archive; a kill in between leaves the former one. */
  async write(archive: Buffer): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const unfinished = `${this.#file}.${process.pid}`;
    await writeFile(unfinished, archive, { mode: 0o600 });
    await rename(unfinished, this.#file);
  }
}
