import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readSigner, readVerifier } from '../checkpoint/keys.ts';
import type { SignatureKind, Signer, Verifier } from '../checkpoint/note.ts';

/** A fresh key in files, as a Secret is mounted. */
export interface TestKey {
  readonly privateFile: string;
  readonly publicFile: string;
  readonly signer: Signer;
  readonly verifier: Verifier;
}

/** Makes a key and reads it back from its files. */
export function makeKey(name: string, kind: SignatureKind): TestKey {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const folder = mkdtempSync(join(tmpdir(), 'somagent-audit-key-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const [privateFile, publicFile] = [join(folder, 'private.pem'), join(folder, 'public.pem')];
  writeFileSync(privateFile, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  writeFileSync(publicFile, publicKey.export({ type: 'spki', format: 'pem' }));
  const verifier = readVerifier(name, kind, publicFile);
  return { privateFile, publicFile, signer: readSigner(name, kind, privateFile), verifier };
}
