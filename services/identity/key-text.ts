import { createHash, randomBytes } from 'node:crypto';

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const idBytes = 16;
const secretBytes = 32;
/** Characters that hold 128 and 256 bits at 5.95 bits each. */
const idLength = 22;
const secretLength = 43;
const pattern = new RegExp(`^soma_([0-9A-Za-z]{${idLength}})_([0-9A-Za-z]{${secretLength}})$`);

/** The parts of an API key. */
export interface KeyParts {
  readonly id: string;
  readonly secret: string;
}

/** A number in base 62, filled up with zeros. */
export function base62(bytes: Uint8Array, length: number): string {
  let value = BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
  let text = '';
  while (text.length < length) {
    text = (alphabet[Number(value % 62n)] ?? '') + text;
    value /= 62n;
  }
  return text;
}

/** A random secret of 256 bits. */
export const newSecret = (): string => base62(randomBytes(secretBytes), secretLength);

/** An id of 128 bits: random, or always the same of the same parts. */
export function newKeyId(...parts: readonly string[]): string {
  if (parts.length === 0) return base62(randomBytes(idBytes), idLength);
  const digest = createHash('sha256').update(JSON.stringify(parts)).digest();
  return base62(digest.subarray(0, idBytes), idLength);
}

/** The key as its owner sends it. */
export const keyText = ({ id, secret }: KeyParts): string => `soma_${id}_${secret}`;

/** The parts of a key; undefined when it has not the form of one. */
export function parseKey(text: string): KeyParts | undefined {
  const [, id, secret] = pattern.exec(text) ?? [];
  return id === undefined || secret === undefined ? undefined : { id, secret };
}

/** A secret of 256 random bits needs no slow hash: there is nothing to guess. */
export const hashSecret = (secret: string): Buffer => createHash('sha256').update(secret).digest();
