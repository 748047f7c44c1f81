import { createHash, randomUUID } from 'node:crypto';

/**
 * The id of something a client asks to create: random, or, with an idempotency key, always the same for the same
 * scope and key, so that a repeated request finds what the first one made. A name-based UUID, RFC 9562 section 5.8.
 */
export function identifierFor(key: string | undefined, ...scope: readonly string[]): string {
  if (key === undefined) return randomUUID();
  const hash = createHash('sha256')
    .update(JSON.stringify([...scope, key]))
    .digest();
  hash.writeUInt8((hash.readUInt8(6) & 0x0f) | 0x80, 6);
  hash.writeUInt8((hash.readUInt8(8) & 0x3f) | 0x80, 8);
  const hex = hash.toString('hex', 0, 16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** A position in the list of sessions, newest first. */
export interface Cursor {
  readonly createdAt: Date;
  readonly id: string;
}

export const encodeCursor = ({ createdAt, id }: Cursor): string =>
  Buffer.from(`${createdAt.toISOString()} ${id}`).toString('base64url');

/** Reads a cursor; undefined when it is not one of ours. */
export function decodeCursor(text: string): Cursor | undefined {
  const match = /^(\S+) ([0-9a-f-]{36})$/.exec(Buffer.from(text, 'base64url').toString());
  const createdAt = new Date(match?.[1] ?? '');
  const id = match?.[2];
  return id === undefined || Number.isNaN(createdAt.getTime()) ? undefined : { createdAt, id };
}
