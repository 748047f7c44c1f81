import { readFileSync } from 'node:fs';
import { fetchTrusting, httpsUrl, text } from '@somagent/kit';
import { z } from 'zod';

/** The variables of a workload that asks the memory gateway. */
export const memoryVariables = {
  MEMORY_URL: httpsUrl('the address of the memory gateway, e.g. https://memory-gateway.local-services.svc:8443'),
  MEMORY_CA_FILE: text('the PEM file of the authority that signed the certificate of the memory gateway'),
  MEMORY_TOKEN_FILE: text('the file with the token by which this service shows the memory gateway who it is'),
};

/** Where the memory gateway is. */
export interface MemoryClientOptions {
  readonly url: string;
  readonly caFile: string;
  readonly tokenFile: string;
}

/** For whom a workload asks. */
export interface Behalf {
  readonly tenant: string;
  readonly subject: string;
  readonly persona?: string;
  readonly sessionId?: string;
}

/** What a workload has remembered for somebody. */
export interface Remembered {
  readonly text: string;
  readonly kind: 'episodic' | 'semantic';
  /** What it comes from: a repetition with the same source changes nothing. */
  readonly source: string;
  /** 0 to 1. @default 0.5 */
  readonly importance?: number;
}

const recallAnswer = z.object({
  memories: z.array(
    z.object({
      id: z.string(),
      text: z.string(),
      kind: z.string(),
      sessionId: z.string().nullable(),
      createdAt: z.string(),
      similarity: z.number().nullable(),
    }),
  ),
  degraded: z.object({ without: z.string(), reason: z.string() }).nullable(),
});

/** What was recalled for somebody. */
export type RecallResult = z.output<typeof recallAnswer>;

/** The memory gateway answered, and not with success. */
export class MemoryRefused extends Error {
  readonly status: number;

  constructor(status: number, detail: string) {
    super(`the memory gateway answered with status ${status}: ${detail}`);
    this.name = 'MemoryRefused';
    this.status = status;
  }

  /** Whether the same request will be refused again. */
  get isFinal(): boolean {
    return this.status >= 400 && this.status < 500 && ![401, 408, 423, 425, 429].includes(this.status);
  }
}

/** Asks the memory gateway on behalf of people and agents, by this workload's identity. */
export class MemoryClient {
  readonly #options: MemoryClientOptions;
  readonly #fetch: typeof fetch;

  constructor(options: MemoryClientOptions) {
    this.#options = options;
    this.#fetch = fetchTrusting(options.caFile);
  }

  /** @throws MemoryRefused, or the error of the connection or the signal. */
  async recall(
    onBehalf: Behalf,
    question: { readonly query: string; readonly limit: number; readonly deadlineMs: number },
    signal: AbortSignal,
  ): Promise<RecallResult> {
    return recallAnswer.parse(await this.#post('/v1/memories/recall', { ...question, onBehalf }, signal));
  }

  /** Resolves when it is stored, or was stored or forgotten before. @throws as {@link recall} */
  async remember(onBehalf: Behalf, memory: Remembered, signal: AbortSignal): Promise<void> {
    try {
      await this.#post('/v1/memories', { ...memory, onBehalf }, signal);
    } catch (error) {
      if (error instanceof MemoryRefused && error.status === 410) return;
      throw error;
    }
  }

  async #post(path: string, content: object, signal: AbortSignal): Promise<unknown> {
    const { url, tokenFile } = this.#options;
    const response = await this.#fetch(`${url}${path}`, {
      method: 'POST',
      // The token is read each time: the kubelet renews it.
      headers: {
        authorization: `Bearer ${readFileSync(tokenFile, 'utf8').trim()}`,
        'content-type': 'application/json',
      },
      body: JSON.stringify(content),
      signal,
    });
    const answer = await response.text();
    if (response.ok) return JSON.parse(answer);
    throw new MemoryRefused(response.status, answer.slice(0, 500));
  }
}
