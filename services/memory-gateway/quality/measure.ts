/** What was found for one question. */
export interface Found {
  /** The one that answers it. */
  readonly wanted: string;
  /** What was found, best first. */
  readonly ids: readonly string[];
}

/** How good a way to find is. */
export interface Quality {
  /** Share of the questions whose passage is among the found. */
  readonly recall: number;
  /** Mean of 1 / place of the passage, 0 where it is not found. */
  readonly mrr: number;
}

/** Recall and mean reciprocal rank. @throws RangeError of no question */
export function measure(found: readonly Found[]): Quality {
  if (found.length === 0) throw new RangeError('nothing was asked');
  const places = found.map(({ wanted, ids }) => ids.indexOf(wanted) + 1);
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return {
    recall: mean(places.map((place) => (place > 0 ? 1 : 0))),
    mrr: mean(places.map((place) => (place > 0 ? 1 / place : 0))),
  };
}
