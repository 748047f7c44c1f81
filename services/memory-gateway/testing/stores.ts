import { startEmbeddings, type TestEmbeddings } from '../../embeddings/testing.ts';
import { startVectorStore, type TestVectorStore } from '../../vector-store/testing.ts';
import { Embeddings } from '../embeddings.ts';
import { VectorStore } from '../vector-store.ts';

/** Length of a vector of the model of tests. */
export const dimensions = 384;

/** The real engine and the real model, each as a process of this machine. */
export interface TestStores {
  readonly engine: TestVectorStore;
  readonly worker: TestEmbeddings;
  readonly vectors: VectorStore;
  readonly embeddings: Embeddings;
  /** How a process of the service is configured for them. */
  readonly environment: Readonly<Record<string, string>>;
  stop(): Promise<void>;
}

/** On a crowded machine a batch may wait long; nothing here measures that. */
const patient = { EMBEDDINGS_DEADLINE_MS: '60000' };

/** Starts both. @param dedicated tenants with a collection of their own */
export async function startTestStores(dedicated: readonly string[] = []): Promise<TestStores> {
  const [engine, worker] = await Promise.all([startVectorStore(), startEmbeddings(patient)]);
  const embeddings = new Embeddings({
    url: `${worker.url}/v1`,
    model: worker.model,
    dimensions,
    tokenFile: worker.tokenFile,
    caFile: worker.caFile,
  });
  const { url, apiKeyFile, caFile } = engine;
  const vectors = new VectorStore({ url, apiKeyFile, caFile, model: worker.model, dimensions, dedicated });
  const environment = {
    QDRANT_URL: url,
    QDRANT_API_KEY_FILE: apiKeyFile,
    QDRANT_CA_FILE: caFile,
    EMBEDDINGS_URL: `${worker.url}/v1`,
    EMBEDDINGS_MODEL: worker.model,
    EMBEDDINGS_DIMENSIONS: String(dimensions),
    EMBEDDINGS_TOKEN_FILE: worker.tokenFile,
    EMBEDDINGS_CA_FILE: worker.caFile,
    DEDICATED_TENANTS: dedicated.join(','),
  };
  const stop = async () => {
    vectors.close();
    await Promise.all([engine.stop(), worker.stop()]);
  };
  return { engine, worker, vectors, embeddings, environment, stop };
}
