import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import type { SigningAlgorithm } from './plan.ts';

/** Both halves of a signing key as PEM: PKCS #8 and SPKI. */
export interface SigningKey {
  readonly 'private.pem': string;
  readonly 'public.pem': string;
}

/** Makes a key pair. */
export function createSigningKey(algorithm: SigningAlgorithm): SigningKey {
  const { privateKey } =
    algorithm === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519');
  return bothHalves(privateKey);
}

/** Reads a stored private key and derives its public half; undefined when it is no key for the algorithm. */
export function readSigningKey(algorithm: SigningAlgorithm, privatePem: string): SigningKey | undefined {
  let key: KeyObject;
  try {
    key = createPrivateKey(privatePem);
  } catch {
    return undefined;
  }
  return isFor(algorithm, key) ? bothHalves(key) : undefined;
}

function isFor(algorithm: SigningAlgorithm, key: KeyObject): boolean {
  if (algorithm === 'Ed25519') return key.asymmetricKeyType === 'ed25519';
  return key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1';
}

function bothHalves(privateKey: KeyObject): SigningKey {
  return {
    'private.pem': privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    'public.pem': createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }).toString(),
  };
}
