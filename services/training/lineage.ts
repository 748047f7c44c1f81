import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { ConfigError } from '@somagent/kit';
import canonicalize from 'canonicalize';
import type { Measures } from './gate.ts';

/** Where a model comes from. Hashes are SHA-256 in hexadecimal. */
export interface Lineage {
  readonly version: 1;
  readonly tenant: string;
  readonly runId: string;
  /** Of the manifest of the exported data; it names the hash of each file. */
  readonly datasetHash: string;
  readonly turns: { readonly train: number; readonly heldOut: number };
  /** Of every module that decides weights or figures. */
  readonly codeHash: string;
  /** Of the text that keeps the model from forgetting. */
  readonly corpusHash: string;
  readonly baseModelHash: string;
  /** Seed and hyperparameters, as the job has used them. */
  readonly recipe: Readonly<Record<string, number>>;
  readonly metrics: { readonly candidate: Measures; readonly serving: Measures };
  readonly modelHash: string;
}

/** A lineage and its Ed25519 signature (RFC 8032) over the canonical JSON (RFC 8785), base64. */
export interface SignedLineage {
  readonly lineage: Lineage;
  readonly signature: string;
}

/** The word that a model passed the gate and that a person lets it serve the tenant. */
export interface Promotion {
  readonly tenant: string;
  /** Rises with each promotion of the tenant: an older one is not taken for the newest. */
  readonly number: number;
  readonly runId: string;
  readonly modelHash: string;
}

/** A promotion and its signature, as that of a lineage. */
export interface SignedPromotion {
  readonly promotion: Promotion;
  readonly signature: string;
}

/** SHA-256 in hexadecimal. */
export const sha256 = (content: Buffer | string): string => createHash('sha256').update(content).digest('hex');

/** The one text of a value that is signed and hashed. */
export function canonical(value: unknown): string {
  const text = canonicalize(value);
  if (text === undefined) throw new TypeError('a value without JSON has no canonical text');
  return text;
}

/** Signs lineages and promotions with the mounted key. */
export class LineageSigner {
  readonly #key: KeyObject;

  /** @throws ConfigError when the file holds no Ed25519 key. */
  constructor(file: string) {
    this.#key = keyOf(file);
  }

  sign(lineage: Lineage): SignedLineage {
    return { lineage, signature: this.#signature(lineage) };
  }

  signPromotion(promotion: Promotion): SignedPromotion {
    return { promotion, signature: this.#signature(promotion) };
  }

  /** Whether this key signed exactly this lineage. */
  verifies({ lineage, signature }: SignedLineage): boolean {
    const key = createPublicKey(this.#key);
    return verify(null, Buffer.from(canonical(lineage)), key, Buffer.from(signature, 'base64'));
  }

  #signature(value: object): string {
    return sign(null, Buffer.from(canonical(value)), this.#key).toString('base64');
  }
}

function keyOf(file: string): KeyObject {
  const fix = `LINEAGE_KEY_FILE is "${file}": mount an Ed25519 private key as PEM (PKCS8) there.`;
  let key: KeyObject;
  try {
    key = createPrivateKey(readFileSync(file, 'utf8'));
  } catch {
    // The message of the parser could quote the key.
    throw new ConfigError([fix]);
  }
  if (key.asymmetricKeyType !== 'ed25519') throw new ConfigError([fix]);
  return key;
}
