import type { KeyObject } from 'node:crypto';
import { type BundleFiles, manifestFile, packBundle, revisionOf, signaturesFile } from '@somagent/policy/bundle.ts';
import { signBundle } from '@somagent/policy/signature.ts';

/** Namespaces of documents that the bundle owns; OPA keeps others, such as the environment's, beside them. */
const roots = ['soma', 'facts'];

/** A bundle that may be published. */
export interface SignedBundle {
  readonly revision: string;
  readonly sequence: number;
  readonly archive: Buffer;
}

/** Adds manifest and signature to a compiled corpus. @param sequence Greater than that of every bundle before. */
export async function sealBundle(
  compiled: BundleFiles,
  privateKey: KeyObject,
  sequence: number,
): Promise<SignedBundle> {
  const revision = revisionOf(compiled);
  const manifest = { revision, roots, rego_version: 1, metadata: { sequence } };
  const files = new Map([...compiled, [manifestFile, Buffer.from(JSON.stringify(manifest))]]);
  files.set(signaturesFile, signBundle(files, privateKey));
  return { revision, sequence, archive: await packBundle(files) };
}
