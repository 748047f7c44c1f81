import { createPublicKey, type KeyObject } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { ObjectStoreBucket } from '@somagent/kit/object-store.ts';
import { type BundleFiles, manifestOf, RefusedBundle, revisionOf, unpackBundle } from '@somagent/policy/bundle.ts';
import { verifyBundle } from '@somagent/policy/signature.ts';
import { currentKey, parseCurrent } from '@somagent/policy/source.ts';
import { sealBundle } from './sign.ts';

/** Where bundles are published: a bucket, or a folder with the same layout. */
export interface BundleShelf {
  read(key: string): Promise<Buffer | undefined>;
  write(key: string, content: Buffer): Promise<void>;
}

/** What a publication did. */
export interface Publication {
  readonly revision: string;
  readonly sequence: number;
  readonly outcome: 'published' | 'unchanged';
}

/**
 * Signs and publishes a compiled corpus: first the bundle, then the pointer, so that a kill in between changes nothing.
 * Repeated with the same corpus and key it writes nothing.
 */
export async function publish(compiled: BundleFiles, privateKey: KeyObject, shelf: BundleShelf): Promise<Publication> {
  const revision = revisionOf(compiled);
  const published = await publishedSequence(shelf, revision, createPublicKey(privateKey));
  if (published.valid) return { revision, sequence: published.sequence, outcome: 'unchanged' };
  // Seconds since 1970 grow even if the store lost its memory; one more than the last one if the clock went back.
  const sequence = Math.max(published.sequence + 1, Math.floor(Date.now() / 1000));
  const bundle = await sealBundle(compiled, privateKey, sequence);
  const key = `bundles/${revision}.tar.gz`;
  await shelf.write(key, bundle.archive);
  await shelf.write(currentKey, Buffer.from(`${JSON.stringify({ revision, key })}\n`));
  return { revision, sequence, outcome: 'published' };
}

/** Number of the bundle in force, and whether it is this revision under a signature of this key. */
async function publishedSequence(shelf: BundleShelf, revision: string, publicKey: KeyObject) {
  try {
    const pointer = await shelf.read(currentKey);
    if (pointer === undefined) return { sequence: 0, valid: false };
    const current = parseCurrent(pointer);
    const archive = await shelf.read(current.key);
    if (archive === undefined) return { sequence: 0, valid: false };
    const files = await unpackBundle(archive);
    const { sequence } = manifestOf(files).metadata;
    return {
      sequence,
      valid: current.revision === revision && revisionOf(files) === revision && isSigned(files, publicKey),
    };
  } catch (error) {
    if (!(error instanceof RefusedBundle)) throw error;
    // What lies there is no bundle: it is replaced.
    return { sequence: 0, valid: false };
  }
}

function isSigned(files: BundleFiles, publicKey: KeyObject): boolean {
  try {
    verifyBundle(files, [publicKey]);
    return true;
  } catch {
    return false;
  }
}

/** A bucket of the object store. */
export function bucketShelf(bucket: ObjectStoreBucket): BundleShelf {
  return {
    async read(key) {
      const object = await bucket.get(key);
      return object === undefined || object === 'unchanged' ? undefined : object.content;
    },
    write: (key, content) =>
      bucket.put(key, content, key.endsWith('.json') ? 'application/json' : 'application/vnd.openpolicyagent.bundles'),
  };
}

/** A folder, for a developer's machine. */
export function folderShelf(folder: string): BundleShelf {
  return {
    async read(key) {
      try {
        return readFileSync(join(folder, key));
      } catch (error) {
        if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
        throw error;
      }
    },
    async write(key, content) {
      const file = join(folder, key);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(`${file}.unfinished`, content);
      renameSync(`${file}.unfinished`, file);
    },
  };
}
