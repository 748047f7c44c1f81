import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { keyId, type SignatureKind, type Signer, type Verifier } from './note.ts';

/** A key file that can't be used. */
export class KeyError extends Error {
  constructor(file: string, problem: string) {
    super(`${file} ${problem}: mount an Ed25519 key as PEM (private: PKCS8, public: SPKI)`);
    this.name = 'KeyError';
  }
}

/** A signing key from a mounted file. @throws KeyError */
export function readSigner(name: string, kind: SignatureKind, file: string): Signer {
  const privateKey = load(file, createPrivateKey);
  const key = createPublicKey(privateKey);
  return { name, kind, key, privateKey, id: keyId(name, kind, key) };
}

/** A public key from a mounted file. @throws KeyError */
export function readVerifier(name: string, kind: SignatureKind, file: string): Verifier {
  const key = load(file, createPublicKey);
  return { name, kind, key, id: keyId(name, kind, key) };
}

function load(file: string, create: (pem: string) => KeyObject): KeyObject {
  let key: KeyObject;
  try {
    key = create(readFileSync(file, 'utf8'));
  } catch (error) {
    // The message of the parser could quote the key.
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    throw new KeyError(file, missing ? 'is not there' : 'holds no key that can be read');
  }
  if (key.asymmetricKeyType !== 'ed25519') throw new KeyError(file, `holds a key of type ${key.asymmetricKeyType}`);
  return key;
}
