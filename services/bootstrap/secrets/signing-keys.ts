import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import type { SigningAlgorithm } from './plan.ts';

/** Length of RSA keys, in bits: good until 2030 by NIST SP 800-57. */
const rsaBits = 3072;

/** Both halves of a signing key as PEM: PKCS #8 and SPKI. */
export interface SigningKey {
  readonly 'private.pem': string;
  readonly 'public.pem': string;
}

/** Makes a key pair. */
export function createSigningKey(algorithm: SigningAlgorithm): SigningKey {
  return bothHalves(generate(algorithm));
}

function generate(algorithm: SigningAlgorithm): KeyObject {
  switch (algorithm) {
    case 'ES256':
      return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    case 'Ed25519':
      return generateKeyPairSync('ed25519').privateKey;
    case 'RS256':
      return generateKeyPairSync('rsa', { modulusLength: rsaBits }).privateKey;
  }
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
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  if (algorithm === 'Ed25519') return type === 'ed25519';
  if (algorithm === 'RS256') return type === 'rsa' && (details?.modulusLength ?? 0) >= rsaBits;
  return type === 'ec' && details?.namedCurve === 'prime256v1';
}

function bothHalves(privateKey: KeyObject): SigningKey {
  return {
    'private.pem': privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    'public.pem': createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }).toString(),
  };
}
