import { verifyConsistency } from '../merkle/index.ts';
import { type Checkpoint, parseCheckpoint } from './checkpoint.ts';
import { cosignText, isSignedBy, NoteError, parseNote, type Signer, type Verifier } from './note.ts';
import type { WitnessState } from './witness-state.ts';

/** A log that a witness watches. */
export interface WatchedLog {
  readonly origin: string;
  readonly verifier: Verifier;
}

/** Answer to a request to cosign: status and body of HTTP. Source: https://c2sp.org/tlog-witness */
export interface WitnessAnswer {
  readonly status: 200 | 400 | 403 | 404 | 409 | 422;
  readonly body: string;
}

const longestProof = 63;

/**
 * Cosigns checkpoints of one log, each only when it is shown that it does no more than append to the one before. It
 * stores what it is about to cosign first, so that no restart makes it forget a promise.
 */
export class Witness {
  readonly #log: WatchedLog;
  readonly #signer: Signer;
  readonly #state: WitnessState;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(log: WatchedLog, signer: Signer, state: WitnessState) {
    this.#log = log;
    this.#signer = signer;
    this.#state = state;
  }

  /** Answers the body of `POST /add-checkpoint`; one request after the other. */
  addCheckpoint(body: string): Promise<WitnessAnswer> {
    const answer = this.#turn.then(() => this.#answer(body));
    this.#turn = answer.catch(() => undefined);
    return answer;
  }

  async #answer(body: string): Promise<WitnessAnswer> {
    let request: AddCheckpoint;
    try {
      request = parseRequest(body);
    } catch (error) {
      if (error instanceof NoteError) return { status: 400, body: `${error.message}\n` };
      throw error;
    }
    const { checkpoint, note } = request;
    if (checkpoint.origin !== this.#log.origin) return { status: 404, body: 'this log is not watched here\n' };
    if (!isSignedBy(note, this.#log.verifier)) return { status: 403, body: 'the log did not sign this checkpoint\n' };
    return this.#compare(request);
  }

  async #compare({ older, proof, checkpoint, note }: AddCheckpoint): Promise<WitnessAnswer> {
    const known = await this.#state.read();
    if (older > checkpoint.size) return { status: 400, body: 'the old size is larger than the checkpoint\n' };
    if (older !== known.size) return { status: 409, body: `${known.size}\n` };
    if (older === checkpoint.size && !known.root.equals(checkpoint.root))
      return { status: 409, body: `${known.size}\n` };
    if (!verifyConsistency(known, checkpoint, proof)) {
      return { status: 422, body: `the checkpoint does not continue the tree of ${known.size} leaves\n` };
    }
    await this.#state.write({ size: checkpoint.size, root: checkpoint.root });
    return { status: 200, body: cosignText(note.text, this.#signer, new Date()) };
  }
}

interface AddCheckpoint {
  readonly older: number;
  readonly proof: readonly Buffer[];
  readonly checkpoint: Checkpoint;
  readonly note: ReturnType<typeof parseNote>;
}

function parseRequest(body: string): AddCheckpoint {
  const end = body.indexOf('\n\n');
  if (end === -1) throw new NoteError('an empty line has to stand between the proof and the checkpoint');
  const [first = '', ...lines] = body.slice(0, end).split('\n');
  const older = /^old (0|[1-9]\d{0,15})$/.exec(first)?.[1];
  if (older === undefined) throw new NoteError('its first line has to be "old <size>"');
  if (lines.length > longestProof) throw new NoteError(`a proof has at most ${longestProof} hashes`);
  const note = parseNote(body.slice(end + 2));
  return { older: Number(older), proof: lines.map(proofHash), checkpoint: parseCheckpoint(note.text), note };
}

function proofHash(line: string): Buffer {
  const bytes = Buffer.from(line, 'base64');
  if (bytes.length !== 32 || bytes.toString('base64') !== line) throw new NoteError('a line of the proof is no hash');
  return bytes;
}

/** The body of `POST /add-checkpoint`. */
export const addCheckpointBody = (older: number, proof: readonly Buffer[], note: string): string =>
  `${[`old ${older}`, ...proof.map((hash) => hash.toString('base64'))].join('\n')}\n\n${note}`;
