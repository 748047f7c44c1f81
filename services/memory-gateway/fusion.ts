/** How a recall weighs what it found. */
export interface Weights {
  /** Of the rank by vectors against the rank by words. @default 1 each */
  readonly vectors: number;
  readonly keywords: number;
  /** Share that a memory of this very moment gains, fading by half each half-life. */
  readonly recency: number;
  readonly halfLifeDays: number;
  /** Share that a memory of importance 1 gains over one of importance 0. */
  readonly importance: number;
}

/** Chosen on the development split of `quality/`. */
export const defaultWeights: Weights = {
  vectors: 1,
  keywords: 1,
  recency: 0.1,
  halfLifeDays: 14,
  importance: 0.2,
};

/** Where a memory was found. */
export interface Ranked {
  readonly id: string;
  /** Score before recency and importance. */
  readonly score: number;
  /** Place among those found by vectors, 1 for the first. */
  readonly vectors: number | null;
  readonly keywords: number | null;
}

/** Cormack, Clarke, Büttcher: Reciprocal Rank Fusion outperforms Condorcet (SIGIR 2009): k = 60. */
const k = 60;

/** Fuses two rankings of ids, best first, by reciprocal rank. Ids of equal score keep the order of the first ranking. */
export function fuse(
  vectors: readonly string[],
  keywords: readonly string[],
  weights: Pick<Weights, 'vectors' | 'keywords'> = defaultWeights,
): readonly Ranked[] {
  const [byVector, byKeyword] = [placesOf(vectors), placesOf(keywords)];
  const ids = [...new Set([...vectors, ...keywords])];
  const ranked = ids.map((id) => {
    const [vector, keyword] = [byVector.get(id) ?? null, byKeyword.get(id) ?? null];
    const score = share(weights.vectors, vector) + share(weights.keywords, keyword);
    return { id, score, vectors: vector, keywords: keyword };
  });
  return ranked.toSorted((a, b) => b.score - a.score);
}

const share = (weight: number, place: number | null): number => (place === null ? 0 : weight / (k + place));

function placesOf(ids: readonly string[]): ReadonlyMap<string, number> {
  const places = new Map<string, number>();
  for (const id of ids) if (!places.has(id)) places.set(id, places.size + 1);
  return places;
}

const dayMs = 24 * 3600 * 1000;

/** The score with recency and importance. @param ageMs milliseconds; one of the future counts as of now */
export function weighted(
  { score }: Pick<Ranked, 'score'>,
  { ageMs, importance }: { readonly ageMs: number; readonly importance: number },
  weights: Weights = defaultWeights,
): number {
  const fresh = 0.5 ** (Math.max(0, ageMs) / (weights.halfLifeDays * dayMs));
  return score * (1 + weights.recency * fresh + weights.importance * importance);
}
