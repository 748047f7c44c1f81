import { type Logger, reasonOf } from '@somagent/kit';
import type { Database } from './database.ts';
import type { Embeddings } from './embeddings.ts';
import { defaultWeights, fuse, type Ranked, type Weights, weighted } from './fusion.ts';
import { keywordSearch } from './keywords.ts';
import type { Memories, Memory } from './memories.ts';
import type { Scope } from './scope.ts';
import type { VectorStore } from './vector-store.ts';

/** What is looked for. */
export interface RecallQuestion {
  readonly scope: Scope;
  readonly query: string;
  /** The most memories of the answer. */
  readonly limit: number;
  /** Time for the search by vectors, milliseconds; what is not found by then is not waited for. */
  readonly deadlineMs: number;
}

/** How to search. @default both ways */
export type RecallMode = 'hybrid' | 'vectors' | 'keywords';

/** A memory that was found, and how. */
export interface Recalled extends Memory {
  /** Higher is better; only comparable within one answer. */
  readonly score: number;
  /** Cosine of the question and the memory; null where it was not found by vectors. */
  readonly similarity: number | null;
  /** Place among those found by each way; null where it was not found that way. */
  readonly rank: { readonly vectors: number | null; readonly keywords: number | null };
}

/** The answer to a {@link RecallQuestion}. */
export interface RecallAnswer {
  readonly memories: readonly Recalled[];
  /** Why only words were searched; null where vectors were searched too. */
  readonly degraded: { readonly without: 'vectors'; readonly reason: string } | null;
  /** Milliseconds. */
  readonly timings: {
    readonly embed: number | null;
    readonly vectors: number | null;
    readonly keywords: number;
    readonly total: number;
  };
}

/** Whom a recall asks. */
export interface RecallParts {
  readonly database: Database;
  readonly memories: Memories;
  readonly vectors: Pick<VectorStore, 'search'>;
  readonly embeddings: Pick<Embeddings, 'embed'>;
  readonly log: Logger;
  readonly weights?: Weights;
}

/** Candidates of each way for one memory of the answer. */
const breadth = 4;

interface VectorSearch {
  readonly found: readonly { readonly id: string; readonly score: number }[];
  readonly embed: number | null;
  readonly took: number | null;
  readonly failure: string | null;
}

const notSearched: VectorSearch = { found: [], embed: null, took: null, failure: null };

/** Finds memories by meaning and by words, and weighs how new and how important they are. */
export class Recall {
  readonly #parts: RecallParts;
  readonly #weights: Weights;

  constructor(parts: RecallParts) {
    this.#parts = parts;
    this.#weights = parts.weights ?? defaultWeights;
  }

  /**
   * What is found. Vectors only name candidates: the memories themselves come from Postgres, under the scope and
   * row-level security, so that nothing that a vector store says can show what the scope does not.
   * @throws the error of the database; a vector store or embeddings worker that is away only degrades the answer.
   */
  async recall(question: RecallQuestion, mode: RecallMode = 'hybrid'): Promise<RecallAnswer> {
    const { database, memories } = this.#parts;
    const { scope, query, limit } = question;
    const begun = performance.now();
    const [byVector, byWord] = await Promise.all([
      mode === 'keywords' ? notSearched : this.#byVector(question),
      mode === 'vectors' ? timed(async () => []) : timed(() => keywordSearch(database, scope, query, limit * breadth)),
    ]);
    const nearest = byVector.found.map(({ id }) => id);
    const ranked = fuse(nearest, byWord.value, this.#weights);
    const candidates = ranked.map(({ id }) => id);
    const found = await memories.within(scope, candidates);
    const similarities = new Map(byVector.found.map(({ id, score }) => [id, score]));
    const { failure, embed, took } = byVector;
    return {
      memories: this.#weigh(ranked, found, similarities).slice(0, limit),
      degraded: failure === null ? null : { without: 'vectors', reason: failure },
      timings: { embed, vectors: took, keywords: byWord.took, total: since(begun) },
    };
  }

  #weigh(
    ranked: readonly Ranked[],
    found: readonly Memory[],
    similarities: ReadonlyMap<string, number>,
  ): readonly Recalled[] {
    const byId = new Map(found.map((memory) => [memory.id, memory]));
    const now = Date.now();
    return ranked
      .flatMap(({ id, vectors, keywords, score }) => {
        const memory = byId.get(id);
        if (memory === undefined) return [];
        const age = { ageMs: now - Date.parse(memory.createdAt), importance: memory.importance };
        const similarity = similarities.get(id) ?? null;
        const rank = { vectors, keywords };
        return [{ ...memory, score: weighted({ score }, age, this.#weights), similarity, rank }];
      })
      .toSorted((a, b) => b.score - a.score);
  }

  async #byVector({ scope, query, limit, deadlineMs }: RecallQuestion): Promise<VectorSearch> {
    const { embeddings, vectors, log } = this.#parts;
    const deadline = AbortSignal.timeout(deadlineMs);
    try {
      const embedded = await withinDeadline(
        deadline,
        timed(() => embeddings.embed([query], { tenant: scope.tenant, signal: deadline })),
      );
      const [vector = []] = embedded.value;
      const found = await withinDeadline(
        deadline,
        timed(() => vectors.search(scope, vector, limit * breadth)),
      );
      return { found: found.value, embed: embedded.took, took: found.took, failure: null };
    } catch (error) {
      const failure = deadline.aborted ? `no answer within ${deadlineMs} ms` : failureOf(error);
      log.warn({ tenant: scope.tenant, reason: failure }, 'recall without vectors');
      return { ...notSearched, failure };
    }
  }
}

/** Before the first memory of a collection is indexed, and while it is built again, there is none. */
const failureOf = (error: unknown): string =>
  typeof error === 'object' && error !== null && 'status' in error && error.status === 404
    ? 'the vectors are not built yet'
    : reasonOf(error);

/** The client of Qdrant can't be told to stop: its answer is left to come to nobody. */
async function withinDeadline<Value>(deadline: AbortSignal, work: Promise<Value>): Promise<Value> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const expire = () => reject(deadline.reason);
  deadline.addEventListener('abort', expire, { once: true });
  try {
    return await Promise.race([work, late]);
  } finally {
    deadline.removeEventListener('abort', expire);
    work.catch(() => undefined);
  }
}

const since = (begun: number): number => Math.round((performance.now() - begun) * 100) / 100;

async function timed<Value>(work: () => Promise<Value>): Promise<{ readonly value: Value; readonly took: number }> {
  const begun = performance.now();
  const value = await work();
  return { value, took: since(begun) };
}
