import { hashLength } from '../merkle/index.ts';
import { NoteError } from './note.ts';

/** What a log says of itself. Source: https://c2sp.org/tlog-checkpoint */
export interface Checkpoint {
  /** Name of the log, unique in the world: a host and a path without a scheme. */
  readonly origin: string;
  readonly size: number;
  readonly root: Buffer;
}

/** The text of the note. */
export const checkpointText = ({ origin, size, root }: Checkpoint): string =>
  `${origin}\n${size}\n${root.toString('base64')}\n`;

/** Reads the text of a note. @throws NoteError */
export function parseCheckpoint(text: string): Checkpoint {
  const [origin = '', size = '', root = ''] = text.split('\n');
  if (origin === '') throw new NoteError('its first line, the origin, is empty');
  if (!/^(0|[1-9]\d{0,15})$/.test(size)) throw new NoteError('its second line is no size');
  const bytes = Buffer.from(root, 'base64');
  if (bytes.length !== hashLength || bytes.toString('base64') !== root) {
    throw new NoteError('its third line is no root hash in base64');
  }
  return { origin, size: Number(size), root: bytes };
}
