import { readFileSync } from 'node:fs';
import { fetchTrusting } from '@somagent/kit';
import OpenAI from 'openai';

/** Where the embeddings worker is. */
export interface EmbeddingsOptions {
  /** Base address of the OpenAI-compatible endpoint, ending in /v1. */
  readonly url: string;
  readonly model: string;
  /** Length of a vector. */
  readonly dimensions: number;
  readonly tokenFile: string;
  readonly caFile: string;
}

/** Vectors of texts, by a model behind an OpenAI-compatible endpoint. */
export class Embeddings {
  readonly model: string;
  readonly dimensions: number;
  readonly #options: EmbeddingsOptions;
  readonly #fetch: typeof fetch;

  constructor(options: EmbeddingsOptions) {
    this.#options = options;
    this.model = options.model;
    this.dimensions = options.dimensions;
    this.#fetch = fetchTrusting(options.caFile);
  }

  /**
   * Vectors of texts, in their order.
   * @throws OpenAI.APIError; Error when the worker's vectors have another length than configured.
   */
  async embed(texts: readonly string[], signal?: AbortSignal): Promise<readonly (readonly number[])[]> {
    if (texts.length === 0) return [];
    const { url: baseURL, tokenFile, model, dimensions } = this.#options;
    // The token is read each time: the kubelet renews it.
    const apiKey = readFileSync(tokenFile, 'utf8').trim();
    const client = new OpenAI({ apiKey, baseURL, fetch: this.#fetch, maxRetries: 0, timeout: 60_000 });
    const request = { model, input: [...texts], encoding_format: 'float' as const };
    const { data } = await client.embeddings.create(request, { signal: signal ?? null });
    const vectors = data.toSorted((a, b) => a.index - b.index).map(({ embedding }) => embedding);
    if (vectors.length === texts.length && vectors.every(({ length }) => length === dimensions)) return vectors;
    throw new Error(
      `the embeddings worker gave ${vectors.length} vectors of ${vectors[0]?.length} dimensions for ${texts.length} texts: set EMBEDDINGS_DIMENSIONS (${dimensions}) to what ${model} has`,
    );
  }
}

/** Whether the worker will refuse the same text again. */
export const isRefused = (error: unknown): boolean =>
  error instanceof OpenAI.APIError && [400, 413, 422].includes(error.status ?? 0);

/** Cosine of two vectors of length 1. */
export const cosine = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, value, place) => sum + value * (b[place] ?? 0), 0);
