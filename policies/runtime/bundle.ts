import { createHash } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { gunzipSync, gzipSync } from 'node:zlib';
import { extract, pack } from 'tar-stream';
import { z } from 'zod';

/** Every decision that a service may ask for. A bundle that lacks one is refused. */
export const entrypoints = [
  'soma/data/verdict',
  'soma/deploy/verdict',
  'soma/gateway/verdict',
  'soma/orchestrator/verdict',
  'soma/tools/verdict',
  'soma/training/verdict',
] as const;

/** Path of a decision in the corpus. */
export type Entrypoint = (typeof entrypoints)[number];

/** Names within a bundle. Source: https://www.openpolicyagent.org/docs/management-bundles#bundle-file-format */
export const manifestFile = '.manifest';
export const signaturesFile = '.signatures.json';
export const moduleFile = 'policy.wasm';
export const dataFile = 'data.json';

/** Content of a bundle by name, without a leading slash. */
export type BundleFiles = ReadonlyMap<string, Buffer>;

const manifestSchema = z.object({
  /** SHA-256 (hex, 64) over all other files: see {@link revisionOf}. */
  revision: z.string().regex(/^[0-9a-f]{64}$/),
  roots: z.array(z.string()),
  rego_version: z.literal(1),
  metadata: z.object({
    /** Grows by one with each published change: an older bundle can't come back under its old signature. */
    sequence: z.number().int().positive(),
  }),
});

/** What a bundle says about itself. */
export type Manifest = z.output<typeof manifestSchema>;

/** A bundle that must not run. The message names the file and what is wrong with it. */
export class RefusedBundle extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RefusedBundle';
  }
}

/** Hard limit of an unpacked bundle, bytes: more is an attack on memory, not a policy. */
const largestBundle = 64 * 1024 * 1024;

/** Unpacks a bundle. @throws RefusedBundle when it is cut short, too large, or no tar at all. */
export async function unpackBundle(archive: Buffer): Promise<BundleFiles> {
  const files = new Map<string, Buffer>();
  try {
    const tar = gunzipSync(archive, { maxOutputLength: largestBundle });
    // A tar that ends without its two empty blocks lost its tail; tar-stream would not say so.
    if (!tar.subarray(-1024).equals(Buffer.alloc(1024))) throw new Error('it ends before its end');
    const reader = extract();
    reader.end(tar);
    for await (const entry of reader) {
      if (entry.header.type !== 'file') throw new Error(`${entry.header.name} is no plain file`);
      const name = entry.header.name.replace(/^\.?\//, '');
      if (files.has(name)) throw new Error(`${name} is in it twice`);
      files.set(name, await buffer(entry));
    }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new RefusedBundle(`the bundle cannot be unpacked: ${why}`, { cause: error });
  }
  return files;
}

/** Packs a bundle. The same files give the same bytes: names are sorted, times and owners are zero. */
export async function packBundle(files: BundleFiles): Promise<Buffer> {
  const tar = pack();
  for (const [name, content] of [...files].sort(byName)) {
    tar.entry({ name: `/${name}`, mtime: new Date(0), mode: 0o644, uid: 0, gid: 0 }, content);
  }
  tar.finalize();
  return gzipSync(await buffer(tar), { level: 9 });
}

/** Reads the manifest. @throws RefusedBundle when it is absent or wrong. */
export function manifestOf(files: BundleFiles): Manifest {
  const parsed = manifestSchema.safeParse(parseJson(files, manifestFile));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new RefusedBundle(`${manifestFile}: ${issue?.path.join('.')} ${issue?.message}`);
}

/** Parses a file of JSON. @throws RefusedBundle when it is absent or no JSON. */
export function parseJson(files: BundleFiles, name: string): unknown {
  const content = files.get(name);
  if (content === undefined) throw new RefusedBundle(`${name} is not in the bundle`);
  try {
    return JSON.parse(content.toString('utf8'));
  } catch (error) {
    throw new RefusedBundle(`${name} is no JSON`, { cause: error });
  }
}

/** Content hash of a bundle: over the digest of each file but the manifest and the signature, by name. */
export function revisionOf(files: BundleFiles): string {
  const digests = [...files]
    .filter(([name]) => name !== manifestFile && name !== signaturesFile)
    .sort(byName)
    .map(([name, content]) => [name, fileDigest(name, content)]);
  return sha256(JSON.stringify(digests));
}

/**
 * SHA-256 (hex) of a file as OPA's signatures have it: structured documents in canonical form, others byte by byte.
 * Source: https://www.openpolicyagent.org/docs/management-bundles#signature-format
 */
export function fileDigest(name: string, content: Buffer): string {
  const structured = name === manifestFile || name.split('/').at(-1) === dataFile;
  return sha256(structured ? canonicalJson(JSON.parse(content.toString('utf8'))) : content);
}

/** JSON with sorted keys and no white space. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, each]) => `${JSON.stringify(key)}:${canonicalJson(each)}`).join(',')}}`;
}

function sha256(content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}

function byName([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}
