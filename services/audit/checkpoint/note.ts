import { hash, type KeyObject, sign, verify } from 'node:crypto';

/** Kinds of signatures below a note: the byte in the key's identifier. Source: C2SP signed-note, tlog-cosignature. */
export const signatureKinds = { log: 0x01, witness: 0x04 } as const;

/** A kind of signature. */
export type SignatureKind = keyof typeof signatureKinds;

/** A key that verifies. */
export interface Verifier {
  readonly name: string;
  readonly kind: SignatureKind;
  readonly key: KeyObject;
  /** Four bytes that tell keys of the same name apart. */
  readonly id: Buffer;
}

/** A key that signs. */
export interface Signer extends Verifier {
  readonly privateKey: KeyObject;
}

/** One line below a note. */
export interface NoteSignature {
  readonly name: string;
  readonly id: Buffer;
  readonly bytes: Buffer;
}

/** Text with signatures below it. Source: https://c2sp.org/signed-note */
export interface Note {
  /** The signed text; it ends with a newline. */
  readonly text: string;
  readonly signatures: readonly NoteSignature[];
}

/** A note that can't be read. */
export class NoteError extends Error {
  constructor(problem: string) {
    super(`the note is not well-formed: ${problem}`);
    this.name = 'NoteError';
  }
}

/** The 32 bytes of an Ed25519 public key. */
export const publicBytes = (key: KeyObject): Buffer => Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url');

/** Identifier of a key: the first four bytes of SHA-256(name ‖ 0x0A ‖ kind ‖ public key). */
export function keyId(name: string, kind: SignatureKind, key: KeyObject): Buffer {
  const input = Buffer.concat([Buffer.from(`${name}\n`), Buffer.from([signatureKinds[kind]]), publicBytes(key)]);
  return hash('sha256', input, 'buffer').subarray(0, 4);
}

/** The public key in one line, `<name>+<id>+<key>`, as verifiers take it. */
export function verifierKey({ name, id, kind, key }: Verifier): string {
  const encoded = Buffer.concat([Buffer.from([signatureKinds[kind]]), publicBytes(key)]).toString('base64');
  return `${name}+${id.toString('hex')}+${encoded}`;
}

/** The line with the log's signature over a text. */
export function signText(text: string, signer: Signer): string {
  return signatureLine(signer, sign(null, Buffer.from(text), signer.privateKey));
}

/** The line with a witness's signature: it has seen the text as a checkpoint at that time. */
export function cosignText(text: string, signer: Signer, time: Date): string {
  const seconds = Math.floor(time.getTime() / 1000);
  const stamp = Buffer.alloc(8);
  stamp.writeBigUInt64BE(BigInt(seconds));
  const signed = sign(null, Buffer.from(cosignedText(text, BigInt(seconds))), signer.privateKey);
  return signatureLine(signer, Buffer.concat([stamp, signed]));
}

const cosignedText = (text: string, seconds: bigint) => `cosignature/v1\ntime ${seconds}\n${text}`;

const signatureLine = ({ name, id }: Signer, bytes: Buffer) =>
  `\u2014 ${name} ${Buffer.concat([id, bytes]).toString('base64')}\n`;

/** Reads a note. @throws NoteError */
export function parseNote(source: string): Note {
  const end = source.lastIndexOf('\n\n');
  if (end === -1) throw new NoteError('an empty line has to stand between its text and its signatures');
  if (!source.endsWith('\n')) throw new NoteError('it has to end with a newline');
  const lines = source.slice(end + 2, -1).split('\n');
  return { text: source.slice(0, end + 1), signatures: lines.map(parseLine) };
}

function parseLine(line: string): NoteSignature {
  const [, name, encoded] = /^\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})$/.exec(line) ?? [];
  if (name === undefined || encoded === undefined) throw new NoteError('a line below it is no signature');
  const bytes = Buffer.from(encoded, 'base64');
  if (bytes.length < 5) throw new NoteError(`the signature of ${name} is too short`);
  return { name, id: bytes.subarray(0, 4), bytes: bytes.subarray(4) };
}

/** Whether a key signed the note: a line of the key is there and every such line is right. */
export function isSignedBy(note: Note, verifier: Verifier): boolean {
  const own = note.signatures.filter(({ name, id }) => name === verifier.name && id.equals(verifier.id));
  return own.length > 0 && own.every(({ bytes }) => isRight(note.text, bytes, verifier));
}

function isRight(text: string, bytes: Buffer, { kind, key }: Verifier): boolean {
  if (kind === 'log') return bytes.length === 64 && verify(null, Buffer.from(text), key, bytes);
  if (bytes.length !== 72) return false;
  return verify(null, Buffer.from(cosignedText(text, bytes.readBigUInt64BE())), key, bytes.subarray(8));
}
