import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { QdrantClient, type Schemas, withHeaders } from '@qdrant/js-client-rest';
import { onFileChange, traceHeaders } from '@somagent/kit';
import type { Scope } from './scope.ts';
import { filterOf, type PointPayload } from './vector-filter.ts';

/** Where Qdrant is, and how its collections are laid out. */
export interface VectorStoreOptions {
  readonly url: string;
  readonly apiKeyFile: string;
  readonly caFile: string;
  /** Of the model that makes the vectors: vectors of another one get collections of their own. */
  readonly model: string;
  readonly dimensions: number;
  /** Tenants large enough for a collection of their own; all others share one. */
  readonly dedicated: readonly string[];
}

/** A vector with what it is filtered by. */
export interface Point {
  readonly id: string;
  readonly vector: readonly number[];
  readonly payload: PointPayload;
}

/** Every collection of this service begins with it; nothing else may be in the key's reach. */
const prefix = 'memory_';
/** Milliseconds; a search has a deadline of its own besides. */
const timeouts = { search: 2000, write: 30_000 } as const;
/** Ids of one request. */
const chunk = 1000;

const keywordFields = ['owner', 'team', 'persona', 'session_id', 'kind'] as const;
const integerFields = ['created_at', 'expires_at'] as const;

/**
 * The vectors of memories in Qdrant. They are derived: whatever is lost here is made again from Postgres. A collection
 * is shared by tenants under an index that keeps their points together (`is_tenant`), or is one tenant's own.
 * Source: https://qdrant.tech/documentation/guides/multiple-partitions/
 */
export class VectorStore {
  readonly #options: VectorStoreOptions;
  readonly #ready = new Map<string, Promise<void>>();
  readonly #unwatch: readonly (() => void)[];
  #clients: { readonly search: QdrantClient; readonly write: QdrantClient };

  constructor(options: VectorStoreOptions) {
    this.#options = options;
    this.#clients = this.#connect();
    const renew = () => {
      this.#clients = this.#connect();
    };
    this.#unwatch = [options.apiKeyFile, options.caFile].map((file) => onFileChange(file, renew));
  }

  /** Name of the collection that a tenant's vectors are in. */
  collectionOf(tenant: string): string {
    const { model, dimensions, dedicated } = this.#options;
    const generation = createHash('sha256').update(`${model}/${dimensions}`).digest('hex').slice(0, 8);
    return `${prefix}${generation}_${dedicated.includes(tenant) ? `tenant_${tenant}` : 'shared'}`;
  }

  /** Creates the tenant's collection and its indexes unless they are there. Safe to run anywhere at the same time. */
  async ensure(tenant: string): Promise<string> {
    const name = this.collectionOf(tenant);
    const known = this.#ready.get(name);
    const ready = known ?? this.#create(name);
    this.#ready.set(name, ready);
    try {
      await ready;
    } catch (error) {
      this.#ready.delete(name);
      throw error;
    }
    return name;
  }

  /** Stores points of one tenant; resolves when they can be found. */
  async upsert(tenant: string, points: readonly Point[]): Promise<void> {
    const collection = await this.ensure(tenant);
    const body = points.map(({ id, vector, payload }) => ({ id, vector: [...vector], payload: { ...payload } }));
    try {
      await inNameOf(tenant, () => this.#clients.write.upsert(collection, { wait: true, points: body }));
    } catch (error) {
      // Somebody may have removed the collection: the next attempt makes it again.
      this.#ready.delete(collection);
      throw error;
    }
  }

  /** Deletes points from every collection of this service, whichever they are in. */
  async remove(ids: readonly string[]): Promise<void> {
    for (const collection of await this.collections()) {
      for (const some of chunks(ids)) await this.#clients.write.delete(collection, { wait: true, points: some });
    }
  }

  /** How many of the points there are, by collection. */
  async present(ids: readonly string[]): Promise<Readonly<Record<string, number>>> {
    const found: Record<string, number> = {};
    for (const collection of await this.collections()) {
      found[collection] = 0;
      for (const some of chunks(ids)) {
        const points = await this.#clients.write.retrieve(collection, { ids: some, with_payload: false });
        found[collection] += points.length;
      }
    }
    return found;
  }

  /** Ids of the points of a scope that are nearest to a vector, nearest first. */
  async search(
    scope: Scope,
    vector: readonly number[],
    limit: number,
  ): Promise<readonly { readonly id: string; readonly score: number }[]> {
    const asked = { query: [...vector], filter: filterOf(scope, Date.now()), limit, with_payload: false };
    const collection = this.collectionOf(scope.tenant);
    const { points } = await inNameOf(scope.tenant, () => this.#clients.search.query(collection, asked));
    return points.map(({ id, score }) => ({ id: String(id), score }));
  }

  /** {@link search} for many of one collection in one request, for work that nobody waits for. */
  async searchMany(
    tenant: string,
    searches: readonly { readonly scope: Scope; readonly vector: readonly number[] }[],
    limit: number,
    threshold: number,
  ): Promise<readonly (readonly string[])[]> {
    const now = Date.now();
    const collection = await this.ensure(tenant);
    const asked = searches.map(({ scope, vector }) => ({
      ...{ query: [...vector], filter: filterOf(scope, now), limit, with_payload: false },
      score_threshold: threshold,
    }));
    const answers = await inNameOf(tenant, () => this.#clients.write.queryBatch(collection, { searches: asked }));
    return answers.map(({ points }) => points.map(({ id }) => String(id)));
  }

  /** How many points a tenant has in its collection. */
  async count(tenant: string): Promise<number> {
    const filter = { must: [{ key: 'tenant', match: { value: tenant } }] };
    const { count } = await this.#clients.write.count(this.collectionOf(tenant), { filter, exact: true });
    return count;
  }

  /** Deletes every snapshot of the collections: one made before a deletion would bring the deleted back. */
  async dropSnapshots(): Promise<{ readonly deleted: number; readonly left: number }> {
    let [deleted, left] = [0, 0];
    for (const collection of await this.collections()) {
      for (const { name } of await this.#clients.write.listSnapshots(collection)) {
        await this.#clients.write.deleteSnapshot(collection, name);
        deleted += 1;
      }
      left += (await this.#clients.write.listSnapshots(collection)).length;
    }
    return { deleted, left };
  }

  /** Deletes the collections of this service, to be built again. */
  async dropCollections(): Promise<readonly string[]> {
    const names = await this.collections();
    for (const name of names) await this.#clients.write.deleteCollection(name);
    this.#ready.clear();
    return names;
  }

  /** For a readiness check. @throws the error of the client */
  async check(): Promise<void> {
    await this.#clients.search.getCollections();
  }

  /** Names of the collections that this service has, also of models that it used before. */
  async collections(): Promise<readonly string[]> {
    const { collections } = await this.#clients.write.getCollections();
    return collections.map(({ name }) => name).filter((name) => name.startsWith(prefix));
  }

  /** Stops looking at its files. */
  close(): void {
    for (const unwatch of this.#unwatch) unwatch();
  }

  async #create(name: string): Promise<void> {
    const client = this.#clients.write;
    const { exists } = await client.collectionExists(name);
    if (!exists) {
      await client
        .createCollection(name, { vectors: { size: this.#options.dimensions, distance: 'Cosine' } })
        .catch(async (error: unknown) => {
          // Another pod was faster.
          if (!(await client.collectionExists(name)).exists) throw error;
        });
    }
    const indexes: readonly (readonly [string, Schemas['PayloadFieldSchema']])[] = [
      ['tenant', { type: 'keyword', is_tenant: true }],
      ...keywordFields.map((field) => [field, 'keyword'] as const),
      ...integerFields.map((field) => [field, 'integer'] as const),
    ];
    for (const [field, schema] of indexes) {
      await client.createPayloadIndex(name, { field_name: field, field_schema: schema, wait: true });
    }
  }

  #connect() {
    const { url, apiKeyFile, caFile } = this.#options;
    // The client takes no authority of its own, only those of the process.
    const [trusted, authority] = [getCACertificates('default'), readFileSync(caFile, 'utf8')];
    if (!trusted.includes(authority)) setDefaultCACertificates([...trusted, authority]);
    const apiKey = readFileSync(apiKeyFile, 'utf8').trim();
    const client = (timeout: number) => new QdrantClient({ url, apiKey, timeout, checkCompatibility: false });
    return { search: client(timeouts.search), write: client(timeouts.write) };
  }
}

/** Tells the server whose request it is, and of which trace; the client takes the headers as it begins. */
const inNameOf = <Answer>(tenant: string, ask: () => Promise<Answer>): Promise<Answer> =>
  withHeaders({ 'x-soma-tenant': tenant, ...traceHeaders() }, ask);

function* chunks(ids: readonly string[]): Generator<string[]> {
  for (let from = 0; from < ids.length; from += chunk) yield ids.slice(from, from + chunk);
}
