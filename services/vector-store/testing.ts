import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type PythonServer, startPythonServer } from '../bootstrap/testing/python-server.ts';

/** The vector store as a process of this machine, with the real engine, for tests. */
export interface TestVectorStore extends PythonServer {
  /** May do everything. */
  readonly apiKey: string;
  readonly apiKeyFile: string;
  /** May only read. */
  readonly readOnlyApiKey: string;
}

/** Starts the vector store on an empty folder. @param variables further settings, see the README */
export async function startVectorStore(variables: Readonly<Record<string, string>> = {}): Promise<TestVectorStore> {
  const [apiKey = '', readOnlyApiKey = ''] = [1, 2].map(() => randomBytes(32).toString('hex'));
  const server = await startPythonServer({
    name: 'vector-store',
    requirements: 'images/qdrant/requirements.txt',
    packages: ['services/vector-store', 'services/slm'],
    module: 'somagent_vectors',
    readiness: '/readyz',
    environment: async (folder, port) => {
      await mkdir(join(folder, 'data'));
      await writeFile(join(folder, 'api-key'), apiKey, { mode: 0o600 });
      await writeFile(join(folder, 'read-only-api-key'), readOnlyApiKey, { mode: 0o600 });
      return {
        VECTOR_STORE_DATA: join(folder, 'data'),
        VECTOR_STORE_TLS_DIR: join(folder, 'tls'),
        VECTOR_STORE_API_KEY_FILE: join(folder, 'api-key'),
        VECTOR_STORE_READ_ONLY_API_KEY_FILE: join(folder, 'read-only-api-key'),
        VECTOR_STORE_HOST: '127.0.0.1',
        VECTOR_STORE_PORT: String(port),
        ...variables,
      };
    },
  });
  return Object.assign(server, { apiKey, readOnlyApiKey, apiKeyFile: join(server.folder, 'api-key') });
}
