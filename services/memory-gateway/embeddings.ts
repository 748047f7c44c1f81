import { readFileSync } from 'node:fs';
import { type HttpClient, openHttpClient } from '@somagent/kit';
import { z } from 'zod';

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

/** The embeddings worker answered, and not with success. */
export class EmbeddingsRefused extends Error {
  readonly status: number;

  constructor(status: number, detail: string) {
    super(`the embeddings worker answered with status ${status}: ${detail}`);
    this.name = 'EmbeddingsRefused';
    this.status = status;
  }
}

/** Milliseconds. */
const timeout = 60_000;

const answerSchema = z.object({ data: z.array(z.object({ index: z.int(), embedding: z.base64() })) });

/**
 * Vectors of texts, by a model behind an OpenAI-compatible endpoint. Vectors come as base64: a quarter of the bytes of
 * decimals, and neither side has to write or read those.
 */
export class Embeddings {
  readonly model: string;
  readonly dimensions: number;
  readonly #options: EmbeddingsOptions;
  readonly #http: HttpClient;

  constructor(options: EmbeddingsOptions) {
    this.#options = options;
    this.model = options.model;
    this.dimensions = options.dimensions;
    this.#http = openHttpClient(options.caFile);
  }

  /**
   * Vectors of texts, in their order; a text that is there twice is sent once.
   * @param tenant whose texts they are, for the worker's log and trace; undefined where they are of several
   * @throws EmbeddingsRefused, or the error of the connection or the signal; Error when the worker's vectors have another
   * length than configured.
   */
  async embed(
    texts: readonly string[],
    { tenant, signal }: { readonly tenant?: string | undefined; readonly signal?: AbortSignal } = {},
  ): Promise<readonly (readonly number[])[]> {
    const different = [...new Set(texts)];
    if (different.length === 0) return [];
    const late = AbortSignal.timeout(timeout);
    const answer = await this.#ask(different, tenant, signal === undefined ? late : AbortSignal.any([signal, late]));
    const { data } = answerSchema.parse(JSON.parse(answer));
    const vectors = data.toSorted((a, b) => a.index - b.index).map(({ embedding }) => floatsOf(embedding));
    this.#requireFitting(vectors, different.length);
    const byText = new Map(different.map((text, place) => [text, vectors[place] ?? []]));
    return texts.map((text) => byText.get(text) ?? []);
  }

  async #ask(input: readonly string[], tenant: string | undefined, signal: AbortSignal): Promise<string> {
    const { url, tokenFile, model } = this.#options;
    const { status, body } = await this.#http.request(`${url}/embeddings`, {
      method: 'POST',
      headers: {
        // The token is read each time: the kubelet renews it.
        authorization: `Bearer ${readFileSync(tokenFile, 'utf8').trim()}`,
        'content-type': 'application/json',
        ...(tenant !== undefined && { 'x-soma-tenant': tenant }),
      },
      body: JSON.stringify({ model, input, encoding_format: 'base64' }),
      signal,
    });
    const answer = await body.text();
    if (status !== 200) throw new EmbeddingsRefused(status, answer.slice(0, 500));
    return answer;
  }

  #requireFitting(vectors: readonly (readonly number[])[], count: number): void {
    const { model, dimensions } = this.#options;
    if (vectors.length === count && vectors.every(({ length }) => length === dimensions)) return;
    throw new Error(
      `the embeddings worker gave ${vectors.length} vectors of ${vectors[0]?.length} dimensions for ${count} texts: set EMBEDDINGS_DIMENSIONS (${dimensions}) to what ${model} has`,
    );
  }
}

/** Of a number of a vector of length 1: what a float32 tells, and half the digits that a double of it has. */
const decimals = 1e7;

/** Little-endian float32, as OpenAI encodes them. */
function floatsOf(base64: string): readonly number[] {
  const bytes = Buffer.from(base64, 'base64');
  const float = (place: number) => Math.round(bytes.readFloatLE(place * 4) * decimals) / decimals;
  return Array.from({ length: Math.floor(bytes.length / 4) }, (_, place) => float(place));
}

/** Whether the worker will refuse the same text again. */
export const isRefused = (error: unknown): boolean =>
  error instanceof EmbeddingsRefused && [400, 413, 422].includes(error.status);

/** Cosine of two vectors of length 1. */
export const cosine = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, value, place) => sum + value * (b[place] ?? 0), 0);
