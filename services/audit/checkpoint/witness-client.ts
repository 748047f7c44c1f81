import type { StoredTree } from '../log/tree.ts';
import { isSignedBy, parseNote, type Verifier } from './note.ts';
import { addCheckpointBody } from './witness.ts';

/** A witness that refuses a checkpoint: the log was rolled back, forked or rewritten. */
export class WitnessRefusal extends Error {
  constructor(witness: string, reason: string) {
    super(`witness ${witness} refuses the checkpoint: ${reason}`);
    this.name = 'WitnessRefusal';
  }
}

/** Options of {@link WitnessClient}. */
export interface WitnessClientOptions {
  /** Address of the witness. */
  readonly url: string;
  readonly verifier: Verifier;
  readonly tree: Pick<StoredTree, 'consistency'>;
  readonly fetch: typeof fetch;
}

/** Asks a witness to cosign checkpoints. */
export class WitnessClient {
  readonly #options: WitnessClientOptions;
  /** The size that the witness knows; it corrects a wrong guess. */
  #known = 0;

  constructor(options: WitnessClientOptions) {
    this.#options = options;
  }

  /** Name of the witness. */
  get name(): string {
    return this.#options.verifier.name;
  }

  /**
   * The line of the witness for a signed checkpoint.
   * @throws WitnessRefusal when the tree does not continue what the witness knows
   * @throws Error when the witness does not answer or its signature is wrong
   */
  async cosign(size: number, note: string): Promise<string> {
    let answer = await this.#ask(size, note);
    if (answer.status === 409) {
      const known = Number(answer.body.trim());
      if (known > size) throw new WitnessRefusal(this.name, `it has seen ${known} leaves, the log has ${size}`);
      if (known === this.#known) throw new WitnessRefusal(this.name, `it knows another tree of ${known} leaves`);
      this.#known = known;
      answer = await this.#ask(size, note);
    }
    if (answer.status === 422 || answer.status === 409) throw new WitnessRefusal(this.name, answer.body.trim());
    if (answer.status !== 200) throw new Error(`witness ${this.name} answers ${answer.status}: ${answer.body.trim()}`);
    if (!isSignedBy(parseNote(`${parseNote(note).text}\n${answer.body}`), this.#options.verifier)) {
      throw new Error(
        `the signature of witness ${this.name} is wrong: is its public key the one that is mounted here?`,
      );
    }
    this.#known = size;
    return answer.body;
  }

  async #ask(size: number, note: string): Promise<{ readonly status: number; readonly body: string }> {
    const known = Math.min(this.#known, size);
    const proof = await this.#options.tree.consistency(known, size);
    const response = await this.#options.fetch(`${this.#options.url}/add-checkpoint`, {
      method: 'POST',
      body: addCheckpointBody(known, proof, note),
      signal: AbortSignal.timeout(3000),
    });
    return { status: response.status, body: await response.text() };
  }
}
