import { readFileSync } from 'node:fs';
import { fetchTrusting, messageOf } from '@somagent/kit';
import { keyOf, type Tuple } from './tuples.ts';

/** OpenFGA does not answer: what it would say is not known. */
export class RelationsUnavailable extends Error {
  constructor(reason: string) {
    super(`OpenFGA does not answer: ${reason}`);
    this.name = 'RelationsUnavailable';
  }
}

/** OpenFGA refuses a request: a fault of the caller or of the configuration. */
export class RelationsRefused extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(`OpenFGA refuses (${status}): ${message}`);
    this.name = 'RelationsRefused';
    this.status = status;
  }
}

/** Where OpenFGA is. */
export interface OpenFgaOptions {
  /** Address without a path, https. */
  readonly url: string;
  /** File with the preshared key; read for each request, so that a rotated key needs no restart. */
  readonly tokenFile: string;
  readonly caFile: string;
  /** Time that one request may take, milliseconds. @default 2000 */
  readonly timeout?: number;
}

/** A store of OpenFGA. */
export interface Store {
  readonly id: string;
  readonly name: string;
  readonly created_at: string;
}

/** A model as OpenFGA keeps it. */
export interface StoredModel {
  readonly id: string;
  readonly schema_version: string;
  readonly type_definitions: readonly unknown[];
  readonly conditions?: Readonly<Record<string, unknown>>;
}

/** A tuple that was written or deleted, in order. */
export interface TupleChange {
  readonly tuple_key: Tuple;
  readonly operation: 'TUPLE_OPERATION_WRITE' | 'TUPLE_OPERATION_DELETE';
  readonly timestamp: string;
}

/** A question to OpenFGA. */
export interface CheckQuestion {
  readonly tuple: Tuple;
  /** Facts that count for this question only. */
  readonly contextual?: readonly Tuple[];
}

interface Page {
  readonly continuation_token?: string;
}

/** Most tuples in one write, and most questions in one batch, that OpenFGA takes by default. */
const writeLimit = 100;
const batchLimit = 50;

/** The calls to OpenFGA that the platform makes. Source: https://openfga.dev/api/service */
export class OpenFga {
  readonly #options: OpenFgaOptions;
  readonly #fetch: typeof fetch;

  constructor(options: OpenFgaOptions) {
    this.#options = options;
    this.#fetch = fetchTrusting(options.caFile);
  }

  /** Every store with that name, the oldest first. */
  async stores(name: string): Promise<readonly Store[]> {
    const found: Store[] = [];
    for await (const page of this.#pages<{ readonly stores: readonly Store[] }>('GET', '/stores', { name })) {
      found.push(...page.stores.filter((store) => store.name === name));
    }
    return found.sort((a, b) => (`${a.created_at} ${a.id}` < `${b.created_at} ${b.id}` ? -1 : 1));
  }

  createStore(name: string): Promise<Store> {
    return this.#call('POST', '/stores', { name });
  }

  async deleteStore(id: string): Promise<void> {
    await this.#call('DELETE', `/stores/${id}`);
  }

  /** Models of a store, the newest first. */
  async *models(store: string): AsyncGenerator<StoredModel> {
    type Models = { readonly authorization_models: readonly StoredModel[] };
    for await (const page of this.#pages<Models>('GET', `/stores/${store}/authorization-models`)) {
      yield* page.authorization_models;
    }
  }

  /** @returns id of the new model. */
  async writeModel(store: string, model: object): Promise<string> {
    type Written = { readonly authorization_model_id: string };
    return (await this.#call<Written>('POST', `/stores/${store}/authorization-models`, model)).authorization_model_id;
  }

  async check(store: string, model: string, { tuple, contextual = [] }: CheckQuestion): Promise<boolean> {
    const body = { ...questionOf(tuple, contextual), authorization_model_id: model };
    return (await this.#call<{ readonly allowed?: boolean }>('POST', `/stores/${store}/check`, body)).allowed === true;
  }

  /** Answers in the order of the questions. */
  async checkAll(store: string, model: string, questions: readonly CheckQuestion[]): Promise<readonly boolean[]> {
    const answers: boolean[] = [];
    for (let start = 0; start < questions.length; start += batchLimit) {
      answers.push(...(await this.#batch(store, model, questions.slice(start, start + batchLimit))));
    }
    return answers;
  }

  async #batch(store: string, model: string, questions: readonly CheckQuestion[]): Promise<readonly boolean[]> {
    const checks = questions.map(({ tuple, contextual = [] }, index) => ({
      ...questionOf(tuple, contextual),
      correlation_id: String(index),
    }));
    type Result = {
      readonly result: Readonly<Record<string, { readonly allowed?: boolean; readonly error?: object }>>;
    };
    const body = { checks, authorization_model_id: model };
    const { result } = await this.#call<Result>('POST', `/stores/${store}/batch-check`, body);
    return questions.map((_, index) => {
      const answer = result[index];
      if (answer === undefined || answer.error) throw new RelationsUnavailable(JSON.stringify(answer?.error ?? null));
      return answer.allowed === true;
    });
  }

  /** Names of the objects of a type to which the user has the relation. */
  async listObjects(
    store: string,
    model: string,
    question: { readonly user: string; readonly relation: string; readonly type: string },
  ): Promise<readonly string[]> {
    const body = { ...question, context: now(), authorization_model_id: model };
    return (await this.#call<{ readonly objects: readonly string[] }>('POST', `/stores/${store}/list-objects`, body))
      .objects;
  }

  /**
   * Every tuple, page by page, or those of a filter.
   * @param filter an object, or a user with all objects of a type (`team:`)
   */
  async *tuples(store: string, filter?: { readonly object: string; readonly user?: string }): AsyncGenerator<Tuple> {
    type Tuples = { readonly tuples: readonly { readonly key: Tuple }[] };
    const body = filter === undefined ? {} : { tuple_key: filter };
    for await (const page of this.#pages<Tuples>('POST', `/stores/${store}/read`, body)) {
      for (const { key } of page.tuples) yield withoutNull(key);
    }
  }

  /** Writes and deletes; what is there, or gone, already is no error. Up to 100 at a time are one transaction. */
  async write(store: string, model: string, writes: readonly Tuple[], deletes: readonly Tuple[]): Promise<void> {
    const changes = [
      ...distinct(deletes).map((tuple) => ({ deletes: [withoutCondition(tuple)], writes: [] })),
      ...distinct(writes).map((tuple) => ({ deletes: [], writes: [tuple] })),
    ];
    for (let start = 0; start < changes.length; start += writeLimit) {
      const part = changes.slice(start, start + writeLimit);
      await this.#writePart(
        store,
        model,
        part.flatMap((change) => change.writes),
        part.flatMap((change) => change.deletes),
      );
    }
  }

  async #writePart(store: string, model: string, writes: readonly Tuple[], deletes: readonly Tuple[]): Promise<void> {
    await this.#call('POST', `/stores/${store}/write`, {
      authorization_model_id: model,
      ...(writes.length > 0 && { writes: { tuple_keys: writes, on_duplicate: 'ignore' } }),
      ...(deletes.length > 0 && { deletes: { tuple_keys: deletes, on_missing: 'ignore' } }),
    });
  }

  /** Changes after a token, or since a time, oldest first, and the token to go on with. */
  async changes(
    store: string,
    from: { readonly token: string } | { readonly since: Date },
  ): Promise<{ readonly changes: readonly TupleChange[]; readonly token: string }> {
    type Changes = Page & { readonly changes: readonly TupleChange[] };
    const start = 'token' in from ? { continuation_token: from.token } : { start_time: from.since.toISOString() };
    const query = new URLSearchParams({ page_size: '100', ...start });
    const page = await this.#call<Changes>('GET', `/stores/${store}/changes?${query}`);
    return { changes: page.changes, token: page.continuation_token ?? '' };
  }

  /** Whether the server serves. @throws RelationsUnavailable */
  async healthy(): Promise<void> {
    await this.#call('GET', '/healthz');
  }

  async *#pages<Content extends object>(
    method: 'GET' | 'POST',
    path: string,
    filter: object = {},
  ): AsyncGenerator<Content & Page> {
    for (let token = ''; ; ) {
      const body = { ...filter, page_size: 100, ...(token && { continuation_token: token }) };
      const query = method === 'GET' ? `?${new URLSearchParams(entries(body))}` : '';
      const page = await this.#call<Content & Page>(method, `${path}${query}`, method === 'GET' ? undefined : body);
      yield page;
      token = page.continuation_token ?? '';
      if (token === '') return;
    }
  }

  async #call<Result>(method: string, path: string, body?: object): Promise<Result> {
    const response = await this.#send(method, path, body);
    const text = await response.text().catch((error: unknown) => unavailable(messageOf(error)));
    if (response.ok) return (text === '' ? {} : JSON.parse(text)) as Result;
    if (response.status >= 500 || response.status === 429) throw new RelationsUnavailable(`${response.status} ${text}`);
    throw new RelationsRefused(response.status, text);
  }

  /** Sends once more when a kept connection has ended in the meantime: every call is safe to repeat. */
  async #send(method: string, path: string, body: object | undefined): Promise<Response> {
    const { url, tokenFile, timeout = 2000 } = this.#options;
    const signal = AbortSignal.timeout(timeout);
    const attempt = () =>
      this.#fetch(`${url}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${readFileSync(tokenFile, 'utf8').trim()}`,
          ...(body && { 'content-type': 'application/json' }),
        },
        ...(body && { body: JSON.stringify(body) }),
        signal,
      });
    try {
      return await attempt().catch((error: unknown) => (signal.aborted ? Promise.reject(error) : attempt()));
    } catch (error) {
      return unavailable(causeOf(error));
    }
  }
}

function unavailable(reason: string): never {
  throw new RelationsUnavailable(reason);
}

const causeOf = (error: unknown): string =>
  error instanceof Error && error.cause instanceof Error ? error.cause.message : messageOf(error);

const entries = (body: object): Record<string, string> =>
  Object.fromEntries(Object.entries(body).map(([name, value]) => [name, String(value)]));

/** Conditions of grants ask for the time of the question. */
const now = () => ({ now: new Date().toISOString() });

const questionOf = (tuple: Tuple, contextual: readonly Tuple[]) => ({
  tuple_key: withoutCondition(tuple),
  contextual_tuples: { tuple_keys: contextual },
  context: now(),
});

/** OpenFGA refuses a write that names a tuple twice. */
const distinct = (tuples: readonly Tuple[]): readonly Tuple[] => [
  ...new Map(tuples.map((tuple) => [keyOf(tuple), tuple])).values(),
];

const withoutCondition = ({ user, relation, object }: Tuple): Tuple => ({ user, relation, object });

/** OpenFGA says null where a tuple has no condition. */
const withoutNull = (tuple: Tuple): Tuple => (tuple.condition ? tuple : withoutCondition(tuple));
