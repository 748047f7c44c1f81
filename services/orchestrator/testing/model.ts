import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import { endProcess, freePort } from '@somagent/bootstrap/testing/processes.ts';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { createLogger, fetchTrusting } from '@somagent/kit';
import { createModels, type Models, parseModels } from '@somagent/models';

const run = promisify(execFile);
const service = new URL('../../slm/', import.meta.url).pathname;

/** The real model server with the bundled model, in one process on loopback. */
export interface TestModel {
  /** Base address, ending in /v1. */
  readonly url: string;
  readonly apiKeyFile: string;
  readonly caFile: string;
  stop(): Promise<void>;
}

/** The models of a worker, as its file names them, with that server as the only provider. */
export function modelsOf({ url, apiKeyFile, caFile }: TestModel): Models {
  const prices = { 'soma-tiny': { prompt: 50_000, completion: 200_000 } };
  const slm = { kind: 'slm', url, caFile, tokenFile: apiKeyFile, prices };
  const models = { 'soma-tiny': { chain: [{ provider: 'slm', model: 'soma-tiny' }] } };
  const log = createLogger({ service: 'models', level: 'silent' });
  return createModels(parseModels({ providers: { slm }, models }), { log });
}

/** The newest model that was built here; undefined when there is none. `services/slm/build-model.sh` makes one. */
export function builtModel(): string | undefined {
  const folder = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'somagent/models');
  try {
    const files = readdirSync(folder).filter((name) => name.endsWith('.gguf'));
    const age = (name: string) => statSync(join(folder, name)).mtimeMs;
    const [newest] = files.toSorted((a, b) => age(b) - age(a));
    return newest === undefined ? undefined : join(folder, newest);
  } catch {
    return undefined;
  }
}

/** Starts the server and waits until it answers. @param model a GGUF file */
export async function startModel(model: string): Promise<TestModel> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-model-'));
  const authority = await createAuthority('test authority');
  const names = { commonName: 'slm', dnsNames: ['localhost'], ipAddresses: ['127.0.0.1'] };
  const leaf = await issueCertificate(authority, { ...names, usages: ['server'] });
  const key = randomBytes(32).toString('base64url');
  const files = { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': authority.certificate, token: key };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
  const args = ['slm-serve-venv', 'requirements-serve.txt', 'requirements-test.txt'];
  const { stdout } = await run('scripts/venv.sh', args, { cwd: service });
  const port = await freePort();
  const child = spawn(join(stdout.trim(), 'bin/python'), ['-m', 'somagent_slm.standalone'], {
    cwd: service,
    stdio: 'ignore',
    env: {
      PATH: process.env.PATH,
      SLM_MODEL_PATH: model,
      SLM_API_KEY_FILE: join(folder, 'token'),
      SLM_TLS_DIR: folder,
      SLM_HOST: '127.0.0.1',
      SLM_PORT: String(port),
      SLM_SLOTS: '4',
      TMPDIR: folder,
    },
  });
  const url = `https://127.0.0.1:${port}/v1`;
  const caFile = join(folder, 'ca.crt');
  const fetch = fetchTrusting(caFile);
  const ask = async () => {
    const { status } = await fetch(`${url}/models`, { headers: { authorization: `Bearer ${key}` } });
    if (status !== 200) throw new Error(`status ${status}`);
  };
  const stop = async () => {
    await endProcess(child);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await waitFor({ name: 'the model', address: url, fix: 'start it by hand and read its output' }, ask, {
      seconds: 90,
    });
    return { url, caFile, apiKeyFile: join(folder, 'token'), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
