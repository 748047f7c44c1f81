import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { z } from 'zod';
import { type BundleFiles, fileDigest, parseJson, RefusedBundle, signaturesFile } from './bundle.ts';

/** The key id that OPA's own verifier looks up by default. */
const keyId = 'default';
const algorithm = 'SHA-256';

const signaturesSchema = z.object({ signatures: z.tuple([z.string()]) });
const headerSchema = z.object({ alg: z.literal('ES256') });
const payloadSchema = z.object({
  files: z.array(z.object({ name: z.string(), hash: z.string(), algorithm: z.literal(algorithm) })),
});

/** Content of `.signatures.json`: one ES256 token over the digest of every other file, which OPA verifies too. */
export function signBundle(files: BundleFiles, privateKey: KeyObject): Buffer {
  const listed = [...files.keys()].filter((name) => name !== signaturesFile).sort();
  const payload = {
    files: listed.map((name) => ({ name, hash: fileDigest(name, files.get(name) as Buffer), algorithm })),
  };
  const signed = `${encode({ alg: 'ES256', typ: 'JWT', kid: keyId })}.${encode(payload)}`;
  const signature = sign('sha256', Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' });
  return Buffer.from(JSON.stringify({ signatures: [`${signed}.${signature.toString('base64url')}`] }));
}

/**
 * Checks that one of the keys signed exactly these files: none changed, none missing, none added.
 * @throws RefusedBundle that names the first file that is wrong.
 */
export function verifyBundle(files: BundleFiles, publicKeys: readonly KeyObject[]): void {
  const claimed = claimedFiles(files, publicKeys);
  for (const [name, content] of files) {
    if (name === signaturesFile) continue;
    if (claimed.get(name) !== fileDigest(name, content)) {
      throw new RefusedBundle(`${name} is not what was signed`);
    }
  }
  const missing = [...claimed.keys()].find((name) => !files.has(name));
  if (missing !== undefined) throw new RefusedBundle(`${missing} was signed and is not in the bundle`);
}

function claimedFiles(files: BundleFiles, publicKeys: readonly KeyObject[]): Map<string, string> {
  const parsed = signaturesSchema.safeParse(parseJson(files, signaturesFile));
  if (!parsed.success) throw new RefusedBundle(`${signaturesFile} must hold exactly one signature`);
  const [header = '', payload = '', signature = ''] = parsed.data.signatures[0].split('.');
  // The algorithm is ours, never the token's choice.
  if (!headerSchema.safeParse(decode(header)).success) throw new RefusedBundle('the signature is not by ES256');
  const signed = Buffer.from(`${header}.${payload}`);
  const bytes = Buffer.from(signature, 'base64url');
  const known = publicKeys.some((key) => verify('sha256', signed, { key, dsaEncoding: 'ieee-p1363' }, bytes));
  if (!known) throw new RefusedBundle('the signature is by no key that is trusted here');
  const claims = payloadSchema.safeParse(decode(payload));
  if (!claims.success) throw new RefusedBundle('the signature lists no files');
  return new Map(claims.data.files.map(({ name, hash }) => [name, hash]));
}

/** Every public key of a PEM file. Several stand in it while a key is being replaced. @throws Error when there is none. */
export function publicKeysOf(pem: string): KeyObject[] {
  const blocks = pem.match(/-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----/g) ?? [];
  if (blocks.length === 0) throw new Error('the file of public keys holds no "BEGIN PUBLIC KEY" block');
  return blocks.map((block) => createPublicKey(block));
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function decode(text: string): unknown {
  try {
    return JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
  } catch {
    return undefined;
  }
}
