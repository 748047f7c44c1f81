import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ObjectStoreBucket } from '@somagent/kit/object-store.ts';
import { z } from 'zod';
import { RefusedBundle } from './bundle.ts';

const currentSchema = z.object({
  revision: z.string().regex(/^[0-9a-f]{64}$/),
  key: z.string().regex(/^bundles\/[0-9a-f]{64}\.tar\.gz$/),
});

/** Which bundle is to run. */
export type Current = z.output<typeof currentSchema>;

/** Where the pointer to the bundle lies, within a bucket or folder. */
export const currentKey = 'current.json';

/** Where bundles come from. */
export interface BundleSource {
  /** The pointer if it changed since it was last read here, else undefined. @throws Error when it can't be read. */
  changed(): Promise<Current | undefined>;
  /** The archive of a bundle. @throws Error when it is absent. */
  bundle(key: string): Promise<Buffer>;
  /** Makes the next `changed` answer with the pointer again, changed or not. */
  forget(): void;
}

/** Bundles in an S3 bucket; an unchanged pointer costs one request without a body. */
export class ObjectStoreSource implements BundleSource {
  readonly #bucket: ObjectStoreBucket;
  #etag: string | undefined;

  constructor(bucket: ObjectStoreBucket) {
    this.#bucket = bucket;
  }

  async changed(): Promise<Current | undefined> {
    const object = await this.#bucket.get(currentKey, this.#etag);
    if (object === 'unchanged') return undefined;
    if (object === undefined) throw new Error(`${currentKey} is not in the bucket yet: has the policy been published?`);
    const current = parseCurrent(object.content);
    this.#etag = object.etag;
    return current;
  }

  async bundle(key: string): Promise<Buffer> {
    const object = await this.#bucket.get(key);
    if (object === undefined || object === 'unchanged') throw new Error(`${key} is not in the bucket`);
    return object.content;
  }

  forget(): void {
    this.#etag = undefined;
  }
}

/** Bundles in a folder, laid out as in the bucket: for a developer's machine. */
export class FolderSource implements BundleSource {
  readonly #folder: string;
  #seen: string | undefined;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async changed(): Promise<Current | undefined> {
    const text = await readFile(join(this.#folder, currentKey), 'utf8');
    if (text === this.#seen) return undefined;
    const current = parseCurrent(Buffer.from(text));
    this.#seen = text;
    return current;
  }

  bundle(key: string): Promise<Buffer> {
    return readFile(join(this.#folder, key));
  }

  forget(): void {
    this.#seen = undefined;
  }
}

/** Reads a pointer. @throws RefusedBundle that names what is wrong. */
export function parseCurrent(content: Buffer): Current {
  try {
    return currentSchema.parse(JSON.parse(content.toString('utf8')));
  } catch (error) {
    throw new RefusedBundle(`${currentKey} must be {"revision", "key"} with a revision of 64 hex digits`, {
      cause: error,
    });
  }
}
