import { type Logger, messageOf } from '@somagent/kit';
import type { StoredTree } from '../log/tree.ts';
import { checkpointText } from './checkpoint.ts';
import { type Signer, signText } from './note.ts';
import type { CheckpointStore } from './store.ts';
import { type WitnessClient, WitnessRefusal } from './witness-client.ts';

/** Options of {@link Checkpointer}. */
export interface CheckpointerOptions {
  /** Name of the log. */
  readonly origin: string;
  readonly signer: Signer;
  readonly tree: StoredTree;
  readonly store: CheckpointStore;
  readonly witness: WitnessClient;
  readonly log: Logger;
  /** Time between two checkpoints, milliseconds. @default 1000 */
  readonly interval?: number;
}

/** What the checkpoints look like from outside. */
export interface CheckpointState {
  /** Size of the newest checkpoint that the witness has signed. */
  readonly witnessed: number;
  /** Why the witness refuses; from then on the log is not to be trusted. Null while all is well. */
  readonly refusal: string | null;
}

/** Signs the stored tree when it has grown, and has the witness sign too. */
export class Checkpointer {
  readonly #options: CheckpointerOptions;
  #timer: NodeJS.Timeout | undefined;
  #turn: Promise<void> = Promise.resolve();
  #signed = 0;
  #state: CheckpointState = { witnessed: 0, refusal: null };

  constructor(options: CheckpointerOptions) {
    this.#options = options;
  }

  get state(): CheckpointState {
    return this.#state;
  }

  /** Begins with what is stored; then a turn every interval, never two at once. */
  start(): void {
    const { log, interval = 1000 } = this.#options;
    this.#timer = setInterval(() => {
      this.#turn = this.#turn
        .then(() => this.run())
        .catch((error: unknown) => log.warn({ reason: messageOf(error) }, 'no checkpoint this time'));
    }, interval);
  }

  /** Ends after the running turn. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#turn;
  }

  /** One turn: signs if the tree has grown, and asks the witness for what it has not signed yet. */
  async run(): Promise<void> {
    const { store, tree, witness } = this.#options;
    const size = await tree.size();
    if (size === 0 || (size === this.#signed && size === this.#state.witnessed)) return;
    if (size !== this.#signed) await store.add(size, await this.#sign(size));
    this.#signed = size;
    // What another pod signed counts: the stored note is the one to cosign.
    const newest = await store.newest();
    if (newest === undefined) return;
    const done = newest.witnesses.includes(witness.name);
    if (!done) await this.#cosign(newest.size, newest.note);
    this.#state = { witnessed: newest.size, refusal: null };
  }

  async #sign(size: number): Promise<string> {
    const { origin, signer, tree } = this.#options;
    const text = checkpointText({ origin, size, root: await tree.root(size) });
    return `${text}\n${signText(text, signer)}`;
  }

  async #cosign(size: number, note: string): Promise<void> {
    const { log, store, witness } = this.#options;
    try {
      await store.cosign(size, witness.name, await witness.cosign(size, note));
    } catch (error) {
      if (error instanceof WitnessRefusal) {
        this.#state = { ...this.#state, refusal: error.message };
        log.error(
          { size, witness: witness.name, reason: error.message },
          'the log does not continue what was witnessed',
        );
      }
      throw error;
    }
  }
}
